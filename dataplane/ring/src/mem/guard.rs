//! Guest memory can vanish: whoever owns the file behind it may cut it short at any time, and the next access raises
//! SIGBUS, which kills the process and with it every other guest's disks. So every region is known to a handler that puts
//! an empty page where memory was and marks the region. Whoever serves it looks at the mark and ends that guest's session.
#![allow(unsafe_code)]

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, Once, PoisonError};

/// Most regions of one process: some hundred guests with some dozen each, or a few that hot-plug a lot.
const GUARDS_MAX: usize = 8192;

/// A range that is watched. `len` is 0 while the place is free; it is written last when a range is entered and first when
/// it is taken out, so that the handler never sees a mixture.
struct Place {
    start: AtomicUsize,
    len: AtomicUsize,
    page: AtomicUsize,
    hit: AtomicBool,
}

static PLACES: [Place; GUARDS_MAX] = [const {
    Place {
        start: AtomicUsize::new(0),
        len: AtomicUsize::new(0),
        page: AtomicUsize::new(0),
        hit: AtomicBool::new(false),
    }
}; GUARDS_MAX];

/// Places that are free; the handler never touches it.
static FREE: Mutex<Vec<usize>> = Mutex::new(Vec::new());

/// How many places were ever used: the handler looks no further.
static USED: AtomicUsize = AtomicUsize::new(0);

/// How often memory has vanished, in all regions together.
static HITS: AtomicU64 = AtomicU64::new(0);

/// How often guest memory of any session has vanished since the process began. While it does not change, no region can
/// have become [`vanished`](crate::MemView::has_vanished).
pub fn vanished_memory_count() -> u64 {
    HITS.load(Ordering::Relaxed)
}

/// Keeps a range watched as long as it lives. It must go before the range is unmapped.
#[derive(Debug)]
pub(super) struct Guard {
    place: usize,
}

impl Guard {
    /// Watches a mapping made of pages of this size; none if too many are watched.
    pub(super) fn new(start: *const u8, len: usize, page: usize) -> Option<Guard> {
        static INSTALL: Once = Once::new();
        INSTALL.call_once(install);
        let mut free = FREE.lock().unwrap_or_else(PoisonError::into_inner);
        let place = match free.pop() {
            Some(place) => place,
            None => {
                let next = USED.load(Ordering::Relaxed);
                if next == GUARDS_MAX {
                    return None;
                }
                USED.store(next + 1, Ordering::Release);
                next
            }
        };
        let entry = &PLACES[place];
        entry.hit.store(false, Ordering::Relaxed);
        entry.start.store(start.addr(), Ordering::Relaxed);
        entry.page.store(page, Ordering::Relaxed);
        entry.len.store(len, Ordering::Release);
        Some(Guard { place })
    }

    /// Whether memory of this range has vanished.
    pub(super) fn is_hit(&self) -> bool {
        PLACES[self.place].hit.load(Ordering::Relaxed)
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        PLACES[self.place].len.store(0, Ordering::Release);
        let mut free = FREE.lock().unwrap_or_else(PoisonError::into_inner);
        free.push(self.place);
    }
}

/// What handled SIGBUS before: Rust's own handler, as a rule. Faults that are not ours go to it.
static BEFORE: Mutex<Option<libc::sigaction>> = Mutex::new(None);

type Handler = extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut libc::c_void);

fn install() {
    // SAFETY: sigaction is plain data, for which all zeros is a value; both pointers are valid for the call. The handler
    // does only what a handler may: atomics, mmap and sigaction.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        let handler: Handler = on_sigbus;
        action.sa_sigaction = handler as usize;
        action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
        let mut before: libc::sigaction = std::mem::zeroed();
        if libc::sigaction(libc::SIGBUS, &raw const action, &raw mut before) == 0 {
            *BEFORE.lock().unwrap_or_else(PoisonError::into_inner) = Some(before);
        }
    }
}

extern "C" fn on_sigbus(
    signal: libc::c_int,
    info: *mut libc::siginfo_t,
    context: *mut libc::c_void,
) {
    // SAFETY: the kernel gives a valid siginfo to a handler with SA_SIGINFO.
    let addr = unsafe { (*info).si_addr() }.addr();
    if !fill(addr) {
        pass_on(signal, info, context);
    }
}

/// Puts an empty page where memory has vanished; false if the address is in no watched range.
fn fill(addr: usize) -> bool {
    let used = USED.load(Ordering::Acquire);
    // Bound: GUARDS_MAX.
    for place in &PLACES[..used] {
        let len = place.len.load(Ordering::Acquire);
        let start = place.start.load(Ordering::Relaxed);
        if addr.wrapping_sub(start) >= len {
            continue;
        }
        let page = place.page.load(Ordering::Relaxed).max(1);
        let at = addr / page * page;
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED | libc::MAP_NORESERVE;
        // SAFETY: the page lies in a mapping of ours that is shared with a guest and only ever reached through raw
        // pointers; what stood there cannot be reached any more. It is unmapped with the rest of the region.
        let filled = unsafe {
            libc::mmap(
                std::ptr::without_provenance_mut(at),
                page,
                protection,
                flags,
                -1,
                0,
            )
        };
        if filled == libc::MAP_FAILED {
            return false;
        }
        place.hit.store(true, Ordering::Relaxed);
        HITS.fetch_add(1, Ordering::Relaxed);
        return true;
    }
    false
}

/// Lets the former handler decide. One that is no function ends the process when the access is repeated.
fn pass_on(signal: libc::c_int, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    let before = BEFORE.try_lock().ok().and_then(|before| *before);
    // SAFETY: as in `install`; all zeros is the default action. What was installed with SA_SIGINFO is such a function.
    unsafe {
        let action = before.unwrap_or_else(|| std::mem::zeroed());
        if action.sa_flags & libc::SA_SIGINFO != 0 {
            let handler: Handler = std::mem::transmute(action.sa_sigaction);
            return handler(signal, info, context);
        }
        libc::sigaction(libc::SIGBUS, &raw const action, std::ptr::null_mut());
    }
}
