//! mimalloc as the allocator of the process.
//!
//! `mimalloc::MiMalloc` asks for every block with its alignment, and mimalloc takes a longer way for
//! those: above 1 KiB it makes a larger block and looks for an aligned place in it. `malloc` alone gives
//! what nearly every type needs, so only unusual alignments go that way here.

use std::alloc::{GlobalAlloc, Layout};
use std::ffi::c_void;

use mimalloc::MiMalloc;

/// What `malloc` aligns blocks to that are not smaller (C17 7.22.3, `max_align_t` of 64-bit targets).
const ALIGNED_BY_MALLOC: usize = 16;

/// To be declared as `#[global_allocator]` by programs.
#[derive(Clone, Copy, Debug, Default)]
pub struct Allocator;

const fn is_aligned_by_malloc(size: usize, align: usize) -> bool {
    align <= ALIGNED_BY_MALLOC && align <= size
}

#[expect(unsafe_code, reason = "the allocator is a library in C")]
unsafe extern "C" {
    fn mi_malloc(size: usize) -> *mut c_void;
    fn mi_zalloc(size: usize) -> *mut c_void;
    fn mi_realloc(block: *mut c_void, size: usize) -> *mut c_void;
}

// SAFETY: the declarations are those of `mimalloc.h`. Blocks of all its functions are freed and grown
// by any of them. `is_aligned_by_malloc` keeps what `malloc` promises; all else is left to `MiMalloc`.
#[expect(unsafe_code, reason = "the allocator is a library in C")]
unsafe impl GlobalAlloc for Allocator {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller keeps the contract of `GlobalAlloc`, which is all these ask for.
        unsafe {
            match is_aligned_by_malloc(layout.size(), layout.align()) {
                true => mi_malloc(layout.size()).cast(),
                false => MiMalloc.alloc(layout),
            }
        }
    }

    #[inline]
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as in `alloc`.
        unsafe {
            match is_aligned_by_malloc(layout.size(), layout.align()) {
                true => mi_zalloc(layout.size()).cast(),
                false => MiMalloc.alloc_zeroed(layout),
            }
        }
    }

    #[inline]
    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: as in `alloc`.
        unsafe { MiMalloc.dealloc(block, layout) }
    }

    #[inline]
    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: as in `alloc`.
        unsafe {
            match is_aligned_by_malloc(size, layout.align()) {
                true => mi_realloc(block.cast(), size).cast(),
                false => MiMalloc.realloc(block, layout, size),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A block of this crate's tests, which `Allocator` serves.
    struct Block(*mut u8, Layout);

    #[expect(unsafe_code, reason = "what is tested is unsafe to call")]
    impl Block {
        fn new(size: usize, align: usize, is_zeroed: bool) -> Self {
            let layout = Layout::from_size_align(size, align).expect("a layout");
            // SAFETY: no size here is 0.
            let block = unsafe {
                match is_zeroed {
                    true => Allocator.alloc_zeroed(layout),
                    false => Allocator.alloc(layout),
                }
            };
            assert!(!block.is_null());
            Self(block, layout)
        }

        fn is_aligned(&self) -> bool {
            self.0.addr().is_multiple_of(self.1.align())
        }

        fn bytes(&mut self) -> &mut [u8] {
            // SAFETY: the block has this size, and only this value knows it; all its bytes are
            // written first, by `alloc_zeroed` or through `fill`.
            unsafe { std::slice::from_raw_parts_mut(self.0, self.1.size()) }
        }

        fn fill(&mut self, byte: u8) {
            // SAFETY: the block has this size.
            unsafe { self.0.write_bytes(byte, self.1.size()) }
        }

        fn resize(&mut self, size: usize) {
            let layout = Layout::from_size_align(size, self.1.align()).expect("a layout");
            // SAFETY: the block is one of this allocator, with that layout.
            self.0 = unsafe { Allocator.realloc(self.0, self.1, size) };
            assert!(!self.0.is_null());
            self.1 = layout;
        }
    }

    #[expect(unsafe_code, reason = "what is tested is unsafe to call")]
    impl Drop for Block {
        fn drop(&mut self) {
            // SAFETY: the block is one of this allocator, with that layout.
            unsafe { Allocator.dealloc(self.0, self.1) }
        }
    }

    #[test]
    fn blocks_are_aligned_zeroed_and_keep_their_bytes_whatever_their_size_and_alignment() {
        let _alone = crate::tests::MEASURED.lock();
        let sizes = (1..300).chain([1023, 1024, 1025, 1480, 4096, 4104, 9000, 65_544, 1 << 20]);
        let mut held = Vec::new();
        for size in sizes {
            for align in (0..13).map(|power| 1_usize << power) {
                let mut block = Block::new(size, align, true);
                assert!(block.is_aligned(), "{size} bytes at {align}");
                assert!(
                    block.bytes().iter().all(|byte| *byte == 0),
                    "{size}, {align}"
                );
                block.fill(7);
                drop(block);
                let mut block = Block::new(size, align, false);
                assert!(block.is_aligned(), "{size} bytes at {align}");
                block.fill(9);
                for other in [size * 2, size.div_ceil(3)] {
                    let kept = other.min(block.1.size());
                    block.resize(other);
                    assert!(block.is_aligned(), "{size} to {other} bytes at {align}");
                    assert!(block.bytes()[..kept].iter().all(|byte| *byte == 9));
                    block.fill(9);
                }
                // Some stay, so that later ones are not always the first of their page.
                if held.len() < 512 {
                    held.push(block);
                }
            }
        }
    }
}
