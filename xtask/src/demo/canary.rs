//! A text that the guest writes to its disk, and a search for it on the drive beneath.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

/// 32 bytes with the line's end, so that every block of a file full of it begins with it.
pub(super) const CANARY: &str = "holdfast-demo-canary-0123456789";

const BLOCK: usize = 4096;

/// Number of blocks of `drive` that begin with the canary.
pub(super) fn count(drive: &Path) -> io::Result<usize> {
    let mut file = File::open(drive)?;
    let mut chunk = vec![0; BLOCK * 256];
    let mut found = 0;
    loop {
        let length = file.read(&mut chunk)?;
        if length == 0 {
            return Ok(found);
        }
        let blocks = chunk[..length].chunks(BLOCK);
        found += blocks
            .filter(|block| block.starts_with(CANARY.as_bytes()))
            .count();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn every_block_of_a_file_full_of_canaries_is_found() {
        let mut drive = tempfile::NamedTempFile::new().unwrap();
        drive.write_all(&[0; BLOCK]).unwrap();
        drive
            .write_all(format!("{CANARY}\n").repeat(BLOCK * 2 / 32).as_bytes())
            .unwrap();
        assert_eq!(count(drive.path()).unwrap(), 2);
    }
}
