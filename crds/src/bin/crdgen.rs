//! `crdgen [FOLDER]`: writes the CustomResourceDefinitions and the reference pages of the kinds.
//!
//! FOLDER is the root of the repository, by default the working directory. Files that are current are
//! left alone.

use std::fs;
use std::path::Path;

use anyhow::Context;

fn main() -> anyhow::Result<()> {
    let root = std::env::args_os().nth(1).unwrap_or_else(|| ".".into());
    let root = Path::new(&root);
    let manifests = crds::manifest::files()?.into_iter();
    let manifests =
        manifests.map(|(name, text)| (format!("{}/{name}", crds::manifest::FOLDER), text));
    let pages = crds::reference::files().into_iter();
    let pages = pages.map(|(name, text)| (format!("{}/{name}", crds::reference::FOLDER), text));
    for (name, text) in manifests.chain(pages) {
        let path = root.join(&name);
        if fs::read_to_string(&path).is_ok_and(|known| known == text) {
            continue;
        }
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)
                .with_context(|| format!("cannot make {}", folder.display()))?;
        }
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}
