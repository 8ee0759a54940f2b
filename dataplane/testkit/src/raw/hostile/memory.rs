//! Memory tables that no honest VMM sends.

use super::{Attack, MIB, USER, after};
use crate::raw::memfd;
use crate::raw::message::{Message, request as code};
use std::io;

pub(super) fn attacks() -> io::Result<Vec<Attack>> {
    let add = || Message::new(code::ADD_MEM_REG).need_reply();
    let table = || Message::new(code::SET_MEM_TABLE).need_reply();
    let good = || memfd(MIB, true);
    Ok(vec![
        after(
            "region of no bytes",
            vec![add().region(0, 0, USER, 0).fd(good()?)],
        ),
        after(
            "region longer than its file",
            vec![add().region(0, 2 * MIB, USER, 0).fd(good()?)],
        ),
        after(
            "region past its file",
            vec![add().region(0, MIB, USER, MIB).fd(good()?)],
        ),
        after(
            "region at a wrapping offset",
            vec![add().region(0, MIB, USER, u64::MAX - 4095).fd(good()?)],
        ),
        after(
            "region of 16 EiB",
            vec![add().region(0, u64::MAX, USER, 0).fd(good()?)],
        ),
        after(
            "region at the end of guest space",
            vec![add().region(u64::MAX - 4095, MIB, USER, 0).fd(good()?)],
        ),
        after(
            "region at the end of user space",
            vec![add().region(0, MIB, u64::MAX - 4095, 0).fd(good()?)],
        ),
        after(
            "regions that overlap for the guest",
            vec![
                add().region(0, MIB, USER, 0).fd(good()?),
                add().region(4096, MIB, USER + 8 * MIB, 0).fd(good()?),
            ],
        ),
        after(
            "regions that overlap for the user",
            vec![
                add().region(0, MIB, USER, 0).fd(good()?),
                add().region(8 * MIB, MIB, USER + 4096, 0).fd(good()?),
            ],
        ),
        after(
            "region that can shrink",
            vec![add().region(0, MIB, USER, 0).fd(memfd(MIB, false)?)],
        ),
        after(
            "region removed that never was",
            vec![
                Message::new(code::REM_MEM_REG)
                    .need_reply()
                    .region(0, MIB, USER, 0),
            ],
        ),
        after("empty table", vec![table().table(&[])]),
        after(
            "table that counts more than it holds",
            vec![table().body(&[8, 0, 0, 0, 0, 0, 0, 0]).fd(good()?)],
        ),
        after(
            "table of 4 billion regions",
            vec![
                table()
                    .words(&[u64::from(u32::MAX), 0, MIB, USER, 0])
                    .fd(good()?),
            ],
        ),
        after(
            "table with an overlap",
            vec![
                table()
                    .table(&[[0, MIB, USER, 0], [4096, MIB, USER + 8 * MIB, 0]])
                    .fd(good()?)
                    .fd(good()?),
            ],
        ),
        after(
            "table with a file too few",
            vec![
                table()
                    .table(&[[0, MIB, USER, 0], [8 * MIB, MIB, USER + 8 * MIB, 0]])
                    .fd(good()?),
            ],
        ),
    ])
}
