//! How much memory is used of how much there is.
//!
//! Read from the control group of this process, version 2 or 1, whichever of the groups above it is
//! nearest to its limit; page cache that the kernel can drop at once does not count. With a limit
//! from the bootstrap file it is the resident memory of the process that is compared with it. A
//! system without any of this gives no figures, and then nothing is shed.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Pages of `/proc/self/statm`; what the kernels we build for use.
const PAGE_BYTES: u64 = 4096;
/// Version 1 says this and a little less when there is no limit.
const NO_LIMIT: u64 = 1 << 60;

/// What is used of what there is, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// In use.
    pub used: u64,
    /// There is.
    pub limit: u64,
}

/// Where figures come from; clones are the same.
#[derive(Clone)]
pub struct Source(Arc<dyn Fn() -> Option<Usage> + Send + Sync>);

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Source")
    }
}

impl Source {
    /// Asks `measure` each time.
    pub fn new(measure: impl Fn() -> Option<Usage> + Send + Sync + 'static) -> Self {
        Self(Arc::new(measure))
    }

    /// The control group's figures, or resident memory against `limit` when there is one.
    pub fn of_this_process(limit: Option<u64>) -> Self {
        if let Some(limit) = limit {
            return Self::new(move || {
                let used = resident_bytes(&fs::read_to_string("/proc/self/statm").ok()?)?;
                Some(Usage { used, limit })
            });
        }
        let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        let groups = groups_of(&groups, Path::new("/sys/fs/cgroup"));
        Self::new(move || nearest(&groups))
    }

    /// The figures of this moment.
    pub fn measure(&self) -> Option<Usage> {
        (self.0)()
    }
}

/// A control group's files.
#[derive(Debug, PartialEq, Eq)]
struct Group {
    limit: PathBuf,
    used: PathBuf,
    stat: PathBuf,
    /// The field of `stat` with the page cache that can be dropped.
    droppable: &'static str,
}

/// The memory groups of this process, its own first and then those above it.
///
/// In a container the path may be that of the host while the tree begins at the container's own
/// group; files that are not there are left out when they are read.
fn groups_of(own: &str, mount: &Path) -> Vec<Group> {
    let mut groups = Vec::new();
    for line in own.lines() {
        let mut parts = line.splitn(3, ':');
        let (Some(_), Some(controllers), Some(path)) = (parts.next(), parts.next(), parts.next())
        else {
            continue;
        };
        let is_v2 = controllers.is_empty();
        let is_v1 = controllers.split(',').any(|name| name == "memory");
        let (root, make): (_, fn(&Path) -> Group) = match (is_v2, is_v1) {
            (true, _) => (mount.to_owned(), v2),
            (_, true) => (mount.join("memory"), v1),
            _ => continue,
        };
        let own = Path::new(path.trim_start_matches('/'));
        groups.extend(own.ancestors().map(|path| make(&root.join(path))));
    }
    groups
}

fn v2(folder: &Path) -> Group {
    Group {
        limit: folder.join("memory.max"),
        used: folder.join("memory.current"),
        stat: folder.join("memory.stat"),
        droppable: "inactive_file",
    }
}

fn v1(folder: &Path) -> Group {
    Group {
        limit: folder.join("memory.limit_in_bytes"),
        used: folder.join("memory.usage_in_bytes"),
        stat: folder.join("memory.stat"),
        droppable: "total_inactive_file",
    }
}

/// The group with the largest share in use.
fn nearest(groups: &[Group]) -> Option<Usage> {
    let usages = groups.iter().filter_map(usage);
    usages.max_by_key(|usage| u128::from(usage.used) * 1_000_000 / u128::from(usage.limit))
}

fn usage(group: &Group) -> Option<Usage> {
    // "max" is no number and stands for no limit.
    let limit = number(&fs::read_to_string(&group.limit).ok()?)?;
    if limit == 0 || limit >= NO_LIMIT {
        return None;
    }
    let used = number(&fs::read_to_string(&group.used).ok()?)?;
    let stat = fs::read_to_string(&group.stat).unwrap_or_default();
    let droppable = stat
        .lines()
        .find_map(|line| line.strip_prefix(group.droppable)?.strip_prefix(' '))
        .and_then(number)
        .unwrap_or_default();
    Some(Usage {
        used: used.saturating_sub(droppable),
        limit,
    })
}

fn resident_bytes(statm: &str) -> Option<u64> {
    number(statm.split(' ').nth(1)?)?.checked_mul(PAGE_BYTES)
}

fn number(text: &str) -> Option<u64> {
    text.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(folder: &Path, files: &[(&str, &str)]) {
        for (name, text) in files {
            let path = folder.join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
    }

    #[test]
    fn the_group_nearest_to_its_limit_counts_in_both_versions() {
        let folder = tempfile::tempdir().unwrap();
        let mount = folder.path();
        let measure = |own: &str| nearest(&groups_of(own, mount));
        assert_eq!(measure("0::/pods/p\n"), None, "no files, no figures");
        write(
            mount,
            &[
                ("pods/p/memory.max", "max\n"),
                ("pods/p/memory.current", "5000\n"),
                ("pods/memory.max", "1000\n"),
                ("pods/memory.current", "900\n"),
                ("pods/memory.stat", "anon 1\ninactive_file 100\n"),
            ],
        );
        let pods = Usage {
            used: 800,
            limit: 1000,
        };
        assert_eq!(measure("0::/pods/p\n"), Some(pods));
        write(
            mount,
            &[
                ("memory/c/memory.limit_in_bytes", "2000\n"),
                ("memory/c/memory.usage_in_bytes", "1900\n"),
                (
                    "memory/c/memory.stat",
                    "inactive_file 7\ntotal_inactive_file 0\n",
                ),
                ("memory/memory.limit_in_bytes", "9223372036854771712\n"),
                ("memory/memory.usage_in_bytes", "99999\n"),
            ],
        );
        let own = "4:cpu,memory:/c\n3:cpu:/x\n0::/pods/p\n";
        let expected = Usage {
            used: 1900,
            limit: 2000,
        };
        assert_eq!(measure(own), Some(expected));
        assert_eq!(measure("nonsense\n\n:\n"), None);
    }

    #[test]
    fn a_tree_that_begins_at_the_container_is_found() {
        let folder = tempfile::tempdir().unwrap();
        write(
            folder.path(),
            &[("memory.max", "10"), ("memory.current", "4")],
        );
        let own = "0::/kubepods.slice/pod1/abc\n";
        let found = nearest(&groups_of(own, folder.path()));
        assert_eq!(found, Some(Usage { used: 4, limit: 10 }));
    }

    #[test]
    fn a_limit_of_the_file_is_compared_with_resident_memory() {
        let usage = Source::of_this_process(Some(1 << 40)).measure().unwrap();
        assert_eq!(usage.limit, 1 << 40);
        assert!(usage.used > 1 << 20, "{}", usage.used);
        assert_eq!(resident_bytes("100 3 1 1 0 1 0"), Some(3 * PAGE_BYTES));
        assert_eq!(resident_bytes("x"), None);
    }
}
