//! Verified load that goes on in a guest while a test does something to the server: three commands for the guest's shell.

/// Begins to write and verify /dev/vda for `seconds`, with so many threads, and comes back at once.
pub fn start(seconds: u32, threads: u32) -> String {
    format!(
        "rm -f /run/io.code; (guest-io run /dev/vda {seconds} {threads} >/run/io.log; echo $? >/run/io.code) >/dev/null &"
    )
}

/// Waits until 50 more writes are done, which is field 5 of the kernel's figures. Fails if the load has ended: then a test that
/// relies on it proves nothing.
pub const WAIT_FOR_50_WRITES: &str = "\
    writes() { awk '{ print $5 }' /sys/block/vda/stat; }; before=$(writes); \
    until [ $(writes) -ge $((before + 50)) ]; do [ ! -e /run/io.code ] || { cat /run/io.log; exit 1; }; usleep 5000; done";

/// Waits for the end, and prints what was done and what went wrong; fails if anything did.
pub const WAIT_FOR_REPORT: &str = "\
    until [ -e /run/io.code ]; do usleep 20000; done; cat /run/io.log; exit $(cat /run/io.code)";
