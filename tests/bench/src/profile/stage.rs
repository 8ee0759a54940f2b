//! The stages of a request, and which functions belong to each: ours by the file they are written in, the kernel's by name.

use serde::Serialize;

/// What a sampled instruction was doing for a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Stage {
    Look,
    Take,
    Translate,
    Parse,
    Inflight,
    Dispatch,
    Device,
    Copy,
    Driver,
    Answer,
    Figures,
    KernelEntry,
    KernelUring,
    KernelFile,
    KernelBlock,
    KernelDrive,
    KernelSleep,
}

/// In the order of a request's life.
pub(crate) const STAGES: [(Stage, &str); 17] = [
    (Stage::Look, "the reactor's turn, looking at rings"),
    (Stage::Take, "take the head, walk the descriptors"),
    (Stage::Translate, "guest to host addresses"),
    (Stage::Parse, "understand the header, check limits"),
    (Stage::Inflight, "in-flight tracking"),
    (Stage::Dispatch, "slot and token, hand to the device"),
    (Stage::Device, "the device"),
    (Stage::Copy, "copy of the data in user space"),
    (Stage::Driver, "wait point: submissions and completions"),
    (Stage::Answer, "status, used element, used index, interrupt"),
    (Stage::Figures, "figures and clock"),
    (Stage::KernelEntry, "system call, in and out"),
    (Stage::KernelUring, "kernel: io_uring"),
    (Stage::KernelFile, "kernel: files, with the copy"),
    (Stage::KernelBlock, "kernel: file system and block layer"),
    (
        Stage::KernelDrive,
        "kernel: driver, doorbell, drive's interrupt",
    ),
    (Stage::KernelSleep, "kernel: sleep and wake"),
];

/// Files of ours, first match counts; the name of a function, if there is one, decides where a file holds several stages.
const OURS: &[(&str, &str, Stage)] = &[
    ("ring/src/inflight", "", Stage::Inflight),
    ("ring/src/queue/rings", "write_used", Stage::Answer),
    ("ring/src/queue/rings", "store_used_idx", Stage::Answer),
    ("ring/src/queue/rings", "used_event", Stage::Answer),
    ("ring/src/queue/rings", "no_interrupt", Stage::Answer),
    ("ring/src/queue/heads", "remove", Stage::Answer),
    ("ring/src/queue.rs", "push", Stage::Answer),
    ("ring/src/queue.rs", "publish", Stage::Answer),
    ("ring/src/queue.rs", "crosses", Stage::Answer),
    ("ring/src/queue", "", Stage::Take),
    ("ring/src/word", "", Stage::Take),
    ("ring/src/mem", "", Stage::Translate),
    ("ring/src/blk", "finish", Stage::Answer),
    ("ring/src/blk", "", Stage::Parse),
    ("bdev/src/fault", "", Stage::Copy),
    ("bdev/src/lines", "", Stage::Copy),
    ("bdev/src/driver", "", Stage::Driver),
    ("bdev/src/slab", "", Stage::Driver),
    ("bdev/src", "", Stage::Device),
    ("io-uring", "", Stage::Driver),
    ("dataplane/src/account", "", Stage::Figures),
    ("dataplane/src/stats", "", Stage::Figures),
    ("dataplane/src/clock", "", Stage::Figures),
    ("dataplane/src/reactor/slots.rs", "age_ns", Stage::Figures),
    ("dataplane/src/reactor/slots.rs", "free", Stage::Answer),
    ("dataplane/src/reactor/slots.rs", "", Stage::Dispatch),
    ("dataplane/src/reactor/ring", "complete", Stage::Answer),
    ("dataplane/src/reactor/ring", "answer", Stage::Answer),
    ("dataplane/src/reactor/ring", "publish", Stage::Answer),
    ("dataplane/src/reactor/ring", "interrupt", Stage::Answer),
    ("dataplane/src/reactor/ring", "", Stage::Dispatch),
    ("dataplane/src/reactor/core", "complete", Stage::Answer),
    ("dataplane/src/reactor/core", "publish", Stage::Answer),
    ("dataplane/src/reactor/peer_event", "", Stage::Answer),
    ("dataplane/src/", "", Stage::Look),
    ("slotmap", "", Stage::Dispatch),
    ("std/src/time", "", Stage::Figures),
    ("std/src/sys/pal/unix/time", "", Stage::Figures),
];

/// Parts of names of the kernel's functions, first match counts.
const KERNEL: &[(&str, Stage)] = &[
    ("shmem", Stage::KernelFile),
    ("filemap", Stage::KernelFile),
    ("copy_folio", Stage::KernelFile),
    ("copy_to", Stage::KernelFile),
    ("copy_from", Stage::KernelFile),
    ("copy_user", Stage::KernelFile),
    ("rep_movs", Stage::KernelFile),
    ("folio", Stage::KernelFile),
    ("xas_", Stage::KernelFile),
    ("xa_load", Stage::KernelFile),
    ("vfs_", Stage::KernelFile),
    ("iov_iter", Stage::KernelFile),
    ("iovec", Stage::KernelFile),
    ("preadv", Stage::KernelFile),
    ("pwritev", Stage::KernelFile),
    ("fdget", Stage::KernelFile),
    ("atime", Stage::KernelFile),
    ("do_iter_readv", Stage::KernelFile),
    ("rw_verify", Stage::KernelFile),
    ("file_permission", Stage::KernelFile),
    ("fsnotify", Stage::KernelFile),
    ("fget", Stage::KernelFile),
    ("fput", Stage::KernelFile),
    ("eventfd", Stage::KernelSleep),
    ("schedule", Stage::KernelSleep),
    ("switch", Stage::KernelSleep),
    ("task", Stage::KernelSleep),
    ("wake", Stage::KernelSleep),
    ("io_", Stage::KernelUring),
    ("uring", Stage::KernelUring),
    ("virt", Stage::KernelDrive),
    ("vring", Stage::KernelDrive),
    ("vp_", Stage::KernelDrive),
    ("iowrite", Stage::KernelDrive),
    ("irq", Stage::KernelDrive),
    ("apic", Stage::KernelDrive),
    ("blk", Stage::KernelBlock),
    ("bio", Stage::KernelBlock),
    ("dio", Stage::KernelBlock),
    ("ext4", Stage::KernelBlock),
    ("iomap", Stage::KernelBlock),
    ("sbitmap", Stage::KernelBlock),
    ("wbt", Stage::KernelBlock),
    ("dd_", Stage::KernelBlock),
    ("deadline", Stage::KernelBlock),
    ("elv_", Stage::KernelBlock),
    ("gup_", Stage::KernelBlock),
    ("pin_user", Stage::KernelBlock),
    ("rq_", Stage::KernelBlock),
    ("mq_", Stage::KernelBlock),
    ("part_", Stage::KernelBlock),
    ("mempool", Stage::KernelBlock),
    ("dma", Stage::KernelBlock),
    ("sg_", Stage::KernelBlock),
    ("syscall", Stage::KernelEntry),
    ("sys_", Stage::KernelEntry),
    ("entry", Stage::KernelEntry),
    ("exit_to_user", Stage::KernelEntry),
    ("untrain_ret", Stage::KernelEntry),
];

impl Stage {
    /// The stage of a function of the server's program, by its file and its name.
    pub(crate) fn of(file: &str, function: &str) -> Option<Stage> {
        let mut all = OURS.iter();
        // Inlined functions have no path, and generic ones have their types in it.
        let name = function.rsplit("::").next().unwrap_or(function);
        let found =
            all.find(|(part, only, _)| file.contains(part) && (only.is_empty() || name == *only));
        found.map(|(_, _, stage)| *stage)
    }

    /// The stage of a function of the server's program of which no line is known, by its path.
    pub(crate) fn by_path(function: &str) -> Option<Stage> {
        let file = function
            .replace("holdfast_", "")
            .replace("dataplane::", "dataplane::src::");
        let file = file
            .replace("ring::queue", "ring::src::queue")
            .replace("bdev::", "bdev::src::");
        Stage::of(&file.replace("::", "/"), function)
    }

    /// The stage of a function of the kernel or of a library.
    pub(crate) fn outside(symbol: &str, file: &str) -> Option<Stage> {
        if file.contains("kernel") {
            let mut all = KERNEL.iter();
            return all
                .find(|(part, _)| symbol.contains(part))
                .map(|(_, stage)| *stage);
        }
        let copies = symbol.contains("memcpy") || symbol.contains("memmove");
        match (copies, file) {
            (true, _) => Some(Stage::Copy),
            (_, "[vdso]") => Some(Stage::Figures),
            _ if symbol.contains("clock_gettime") => Some(Stage::Figures),
            // The library's side of a system call.
            _ if ["preadv", "pwritev", "syscall", "asynccancel"]
                .iter()
                .any(|part| symbol.contains(part)) =>
            {
                Some(Stage::KernelEntry)
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_stage_has_one_place_in_the_table() {
        for (number, (stage, words)) in STAGES.iter().enumerate() {
            assert!(!words.is_empty());
            assert!(STAGES[number + 1..].iter().all(|(other, _)| other != stage));
        }
    }

    #[test]
    fn function_of_ours_belongs_to_the_stage_of_its_file_and_name() {
        let stage = |file, function| Stage::of(file, function);
        let queue = "/src/dataplane/ring/src/queue.rs";
        assert_eq!(stage(queue, "SplitQueue::pop"), Some(Stage::Take));
        assert_eq!(stage(queue, "SplitQueue::push"), Some(Stage::Answer));
        let core = "/src/library/core/src/ptr/mod.rs";
        assert_eq!(stage(core, "core::ptr::read"), None);
    }

    #[test]
    fn function_without_lines_belongs_to_the_stage_of_its_path() {
        let copy = Stage::by_path("holdfast_bdev::fault::copy");
        assert_eq!(copy, Some(Stage::Copy));
        let answer = Stage::by_path("holdfast_dataplane::reactor::ring::Ring::answer");
        assert_eq!(answer, Some(Stage::Answer));
        assert_eq!(Stage::by_path("core::ptr::read"), None);
    }

    #[test]
    fn function_of_the_kernel_that_is_not_known_belongs_to_no_stage() {
        let kernel = "[kernel.kallsyms]";
        let copy = Stage::outside("_copy_to_iter", kernel);
        assert_eq!(copy, Some(Stage::KernelFile));
        assert_eq!(Stage::outside("kfree", kernel), None);
        assert_eq!(Stage::outside("main", "/usr/lib/libc.so.6"), None);
    }
}
