//! A copy from or to a mapped file that may fail. A file that was cut short, or that has no room for a page that is written,
//! answers an access with SIGBUS, which ends a process unless somebody handles it. The handler here lets the copy end early,
//! and whoever asked for it makes the system call instead, whose answer is an error number.
#![allow(unsafe_code)] // Machine code and a signal handler.

use std::sync::{Mutex, OnceLock, PoisonError};

/// Copies `len` bytes and returns how many are missing: 0, unless an access inside the window failed.
///
/// # Safety
/// [`is_survivable`] was true. Both ranges are valid for the copy, but that accesses from `window` on for `window_len` bytes
/// may raise SIGBUS.
#[cfg(target_arch = "x86_64")]
#[unsafe(naked)]
pub(crate) unsafe extern "sysv64" fn copy(
    to: *mut u8,
    from: *const u8,
    len: usize,
    window: *const u8,
    window_len: usize,
) -> usize {
    // `rep movsb` keeps all there is to know in registers, so that it can be left at any byte. The window stays in r9 and r8
    // for the handler.
    std::arch::naked_asm!(
        "mov r9, rcx",
        "mov rcx, rdx",
        "rep movsb",
        "mov rax, rcx",
        "ret",
    )
}

/// Nobody maps a file where this is not written; see [`is_survivable`].
///
/// # Safety
/// None is needed: it copies nothing.
#[cfg(not(target_arch = "x86_64"))]
pub(crate) unsafe fn copy(_: *mut u8, _: *const u8, len: usize, _: *const u8, _: usize) -> usize {
    len
}

/// Whether [`copy`] survives a failed access in this process. The first call installs the handler.
pub(crate) fn is_survivable() -> bool {
    static INSTALLED: OnceLock<bool> = OnceLock::new();
    cfg!(target_arch = "x86_64") && *INSTALLED.get_or_init(install)
}

/// What handled SIGBUS before: faults that are not ours go to it.
static BEFORE: Mutex<Option<libc::sigaction>> = Mutex::new(None);

type Handler = extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut libc::c_void);

fn install() -> bool {
    // Held until the former handler is known, so that no fault is passed on to nobody.
    let mut known = BEFORE.lock().unwrap_or_else(PoisonError::into_inner);
    // SAFETY: sigaction is plain data, for which all zeros is a value; both pointers are valid for the call. The handler does
    // only what a handler may: it changes registers, and calls sigaction.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        let handler: Handler = on_sigbus;
        action.sa_sigaction = handler as usize;
        action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
        let mut before: libc::sigaction = std::mem::zeroed();
        let installed = libc::sigaction(libc::SIGBUS, &raw const action, &raw mut before) == 0;
        *known = installed.then_some(before);
        installed
    }
}

extern "C" fn on_sigbus(
    signal: libc::c_int,
    info: *mut libc::siginfo_t,
    context: *mut libc::c_void,
) {
    // SAFETY: the kernel gives a valid siginfo and context to a handler with SA_SIGINFO.
    let left = unsafe { leave_copy((*info).si_addr().addr(), &mut *context.cast()) };
    if !left {
        pass_on(signal, info, context);
    }
}

/// Goes on behind the copying instruction; false if the fault is none of a copy in its window.
#[cfg(target_arch = "x86_64")]
#[allow(clippy::cast_sign_loss)] // Names of registers are indices, and their values are addresses.
fn leave_copy(addr: usize, context: &mut libc::ucontext_t) -> bool {
    /// The function is shorter, and one instruction of it touches memory.
    const COPY_LEN: u64 = 16;
    const REP_MOVSB_LEN: i64 = 2;
    let registers = &mut context.uc_mcontext.gregs;
    let register = |name: libc::c_int| registers[name as usize] as u64;
    let into = register(libc::REG_RIP).wrapping_sub(copy as *const () as u64);
    let offset = (addr as u64).wrapping_sub(register(libc::REG_R9));
    let ours = into < COPY_LEN && offset < register(libc::REG_R8);
    if ours {
        registers[libc::REG_RIP as usize] += REP_MOVSB_LEN;
    }
    ours
}

#[cfg(not(target_arch = "x86_64"))]
fn leave_copy(_: usize, _: &mut libc::ucontext_t) -> bool {
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
