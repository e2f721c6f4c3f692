//! Free blocks between blocks that stay: taken, so that the memory beneath them can go.
//!
//! mimalloc gives a page of 64 KiB back when nothing in it is used. What one update leaves in use (the
//! next configuration, a buffer of a stream) keeps a page for each size of block, and those pages
//! were full while routes came and went. [`Held::take`] allocates all blocks that are free in pages of
//! the calling thread and in such as belong to none, and where these blocks cover pages of the system
//! whole, those are given back and the blocks are held: nobody uses them, so nothing is touched until
//! [`Held::let_go`] frees them. Called by `lib.rs`; only functions of `mimalloc.h` are used, none of
//! its insides.

use std::ffi::{c_int, c_long, c_void};

/// Sizes of block that mimalloc has, generously.
const SIZES_MAX: usize = 128;
/// With less than this free in its pages a thread leaves them: while blocks are held its next ones come
/// from new pages, one for each size, and those take about as much.
const WORTH_BYTES: usize = 512 << 10;
/// Blocks smaller than this are not worth being taken one by one.
const BLOCK_MIN: usize = 16;
/// Blocks that are taken before it is seen which of them are held: a list of half a MiB for that time.
const TAKEN_MAX: usize = 64 * 1024;
/// What one take may do: so many blocks are a tenth of a second of work and at most 8 MiB of lists. What
/// is beyond stays as it is.
const BUDGET: Budget = Budget {
    blocks: 1024 * 1024,
    pages: 512,
};

/// Blocks that the calling thread took and nobody uses.
#[derive(Debug, Default)]
pub(crate) struct Held {
    runs: Vec<Run>,
}

/// Blocks one behind the other.
#[derive(Debug)]
struct Run {
    start: usize,
    size: usize,
    count: usize,
}

/// What is free in this thread's pages with blocks of one size.
#[derive(Clone, Copy, Debug)]
struct Free {
    size: usize,
    blocks: usize,
}

/// What is left of what one take may do.
#[derive(Clone, Copy, Debug)]
struct Budget {
    blocks: usize,
    /// Pages of nobody, among which are full ones that workers gave up.
    pages: usize,
}

/// `mi_heap_area_t`: one page of mimalloc.
#[repr(C)]
struct Area {
    blocks: *mut c_void,
    reserved: usize,
    committed: usize,
    used: usize,
    block_size: usize,
    full_block_size: usize,
    reserved1: *mut c_void,
}

type Visit = unsafe extern "C" fn(
    heap: *const c_void,
    area: *const Area,
    block: *mut c_void,
    block_size: usize,
    argument: *mut c_void,
) -> bool;

#[expect(unsafe_code, reason = "the allocator is a library in C")]
unsafe extern "C" {
    fn mi_malloc(size: usize) -> *mut c_void;
    fn mi_free(block: *mut c_void);
    fn mi_theap_get_default() -> *mut c_void;
    fn mi_theap_visit_blocks(
        theap: *const c_void,
        visit_blocks: bool,
        visitor: Visit,
        argument: *mut c_void,
    ) -> bool;
    fn madvise(address: *mut c_void, length: usize, advice: c_int) -> c_int;
    fn sysconf(name: c_int) -> c_long;
}

impl Held {
    /// Takes what is free in pages of the calling thread, and gives back the memory beneath it.
    /// True when there was something.
    pub(crate) fn take(&mut self) -> bool {
        let Some(page_size) = page_size() else {
            return false;
        };
        let all_free = free_blocks();
        let bytes: usize = all_free.iter().map(|free| free.size * free.blocks).sum();
        if bytes < WORTH_BYTES {
            return false;
        }
        let mut budget = BUDGET;
        for free in all_free {
            Taking::new(free.size, page_size).all(free.blocks, &mut budget, &mut self.runs);
        }
        !self.runs.is_empty()
    }

    #[cfg(test)]
    pub(crate) fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    /// Frees what is held; the memory beneath it is touched by that, and there to be used.
    pub(crate) fn let_go(&mut self) {
        for run in self.runs.drain(..) {
            (0..run.count).for_each(|nth| free_block(run.start + nth * run.size));
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.let_go();
    }
}

/// Blocks of one size while they are taken.
struct Taking {
    size: usize,
    page_size: usize,
    taken: Vec<usize>,
    /// Of no use to be held. They are freed at the end: what is freed would be taken again.
    rest: Vec<usize>,
}

impl Taking {
    fn new(size: usize, page_size: usize) -> Self {
        Self {
            size,
            page_size,
            taken: Vec::new(),
            rest: Vec::new(),
        }
    }

    /// Takes so many blocks, which are free in pages of the calling thread, then what is free in pages
    /// of nobody: with none of its own a thread is given such a page, and only when there is none, a
    /// new one.
    fn all(mut self, mut blocks: usize, budget: &mut Budget, held: &mut Vec<Run>) {
        loop {
            let allowed = blocks.min(budget.blocks);
            budget.blocks -= allowed;
            self.some(allowed, held);
            if allowed < blocks || budget.pages == 0 {
                break;
            }
            let Some(next) = take_block(self.size) else {
                break;
            };
            budget.pages -= 1;
            self.taken.push(next);
            let Some(beside) = free_beside(next, &self.taken) else {
                self.taken.pop();
                self.rest.push(next);
                break;
            };
            blocks = beside;
        }
        self.keep(held);
        self.rest.into_iter().for_each(free_block);
    }

    fn some(&mut self, blocks: usize, held: &mut Vec<Run>) {
        for _ in 0..blocks {
            let Some(block) = take_block(self.size) else {
                return;
            };
            self.taken.push(block);
            if self.taken.len() >= TAKEN_MAX {
                self.keep(held);
            }
        }
    }

    /// Of the blocks taken, holds those that cover pages of the system.
    fn keep(&mut self, held: &mut Vec<Run>) {
        self.taken.sort_unstable();
        let size = self.size;
        for blocks in self.taken.chunk_by(|one, next| one + size == *next) {
            let [start, ..] = *blocks else { continue };
            let end = start + blocks.len() * size;
            let from = start.next_multiple_of(self.page_size);
            let to = end - end % self.page_size;
            if from >= to {
                self.rest.extend(blocks);
                continue;
            }
            let first = (from - start) / size;
            let behind = (to - start).div_ceil(size);
            self.rest.extend(&blocks[..first]);
            self.rest.extend(&blocks[behind..]);
            give_back(from, to - from);
            held.push(Run {
                start: start + first * size,
                size,
                count: behind - first,
            });
        }
        self.taken.clear();
    }
}

/// How many blocks are free in the page of `block`, the last of those taken; nothing if that is a new
/// page, with no other block in use.
fn free_beside(block: usize, taken: &[usize]) -> Option<usize> {
    let mut free = None;
    visit(&mut |area| {
        let page = area.blocks.addr()..area.blocks.addr() + area.reserved;
        if page.contains(&block) {
            let ours = taken.iter().filter(|it| page.contains(it)).count();
            let all = area.reserved / area.full_block_size.max(1);
            free = (area.used > ours).then(|| all.saturating_sub(area.used));
        }
    });
    free
}

/// What is free in pages of the calling thread, by size of block.
fn free_blocks() -> Vec<Free> {
    let mut found: Vec<Free> = Vec::with_capacity(SIZES_MAX);
    visit(&mut |area| {
        let size = area.full_block_size;
        if size < BLOCK_MIN || size != area.block_size {
            return;
        }
        let blocks = (area.committed / size).saturating_sub(area.used);
        if let Some(it) = found.iter_mut().find(|it| it.size == size) {
            it.blocks += blocks;
        } else if found.len() < found.capacity() {
            found.push(Free { size, blocks });
        }
    });
    found
}

/// Shows all pages of the calling thread. Nothing may be allocated or freed meanwhile: that would
/// change what is visited.
fn visit(mut see: &mut dyn FnMut(&Area)) {
    #[expect(unsafe_code, reason = "called by C")]
    unsafe extern "C" fn shown(
        _: *const c_void,
        area: *const Area,
        _: *mut c_void,
        _: usize,
        argument: *mut c_void,
    ) -> bool {
        // SAFETY: mimalloc calls this with an area of its own, and with the argument given below,
        // which nobody else has meanwhile.
        let (area, see) = unsafe { (&*area, &mut *argument.cast::<&mut dyn FnMut(&Area)>()) };
        see(area);
        true
    }

    // SAFETY: the declarations are those of `mimalloc.h`. The pages visited belong to the calling
    // thread, which does nothing else meanwhile; a thread that has none is left alone.
    #[expect(unsafe_code, reason = "the allocator is a library in C")]
    unsafe {
        let theap = mi_theap_get_default();
        mi_theap_visit_blocks(theap, false, shown, (&raw mut see).cast());
    }
}

fn take_block(size: usize) -> Option<usize> {
    // SAFETY: `mi_malloc` takes any size.
    #[expect(unsafe_code, reason = "the allocator is a library in C")]
    let block = unsafe { mi_malloc(size) };
    (!block.is_null()).then(|| block.expose_provenance())
}

fn free_block(address: usize) {
    // SAFETY: all addresses here are of blocks that `take_block` gave; each is freed once, by who
    // drops it from a list.
    #[expect(unsafe_code, reason = "the allocator is a library in C")]
    unsafe {
        mi_free(std::ptr::with_exposed_provenance_mut(address));
    }
}

/// Bytes of a page of the system; nothing where pages cannot be given back so.
fn page_size() -> Option<usize> {
    /// `_SC_PAGESIZE` of Linux.
    const PAGE_SIZE: c_int = 30;
    if !cfg!(target_os = "linux") {
        return None;
    }
    // SAFETY: `sysconf` only answers.
    #[expect(unsafe_code, reason = "a function of C")]
    let size = unsafe { sysconf(PAGE_SIZE) };
    usize::try_from(size).ok().filter(|it| it.is_power_of_two())
}

/// Gives the memory back to the system; what is read there next is zero. Where the system refuses,
/// it stays.
fn give_back(address: usize, length: usize) {
    /// `MADV_DONTNEED` of Linux.
    const DO_NOT_NEED: c_int = 4;
    // SAFETY: the memory is covered by blocks that this file took and in which nothing is kept.
    #[expect(unsafe_code, reason = "a function of C")]
    unsafe {
        madvise(
            std::ptr::with_exposed_provenance_mut(address),
            length,
            DO_NOT_NEED,
        );
    }
}
