//! Writes the archive format that Linux unpacks as its first file system ("newc").

use std::io::{self, Write};

/// An archive under way. Ends with [`Archive::finish`], or the kernel finds it damaged.
#[derive(Debug)]
pub(crate) struct Archive<W> {
    out: W,
    inode: u32,
}

const FOLDER: u32 = 0o040_755;
const PROGRAM: u32 = 0o100_755;
const SYMLINK: u32 = 0o120_777;
/// Headers and contents start at multiples of this.
const ALIGN: usize = 4;

impl<W: Write> Archive<W> {
    pub(crate) fn new(out: W) -> Archive<W> {
        Archive { out, inode: 0 }
    }

    /// Adds a folder; its parent must have been added before.
    pub(crate) fn folder(&mut self, path: &str) -> io::Result<()> {
        self.entry(path, FOLDER, &[])
    }

    /// Adds a file that may be executed.
    pub(crate) fn file(&mut self, path: &str, content: &[u8]) -> io::Result<()> {
        self.entry(path, PROGRAM, content)
    }

    /// Adds a symbolic link.
    pub(crate) fn link(&mut self, path: &str, target: &str) -> io::Result<()> {
        self.entry(path, SYMLINK, target.as_bytes())
    }

    /// Closes the archive.
    pub(crate) fn finish(mut self) -> io::Result<W> {
        self.entry("TRAILER!!!", 0, &[])?;
        Ok(self.out)
    }

    fn entry(&mut self, path: &str, mode: u32, content: &[u8]) -> io::Result<()> {
        self.inode += 1;
        let length = u32::try_from(content.len()).map_err(io::Error::other)?;
        let name_length = u32::try_from(path.len() + 1).map_err(io::Error::other)?;
        let mut header = String::from("070701");
        // inode, mode, uid, gid, links, mtime, length, device and rdevice, name length, check.
        for field in [
            self.inode,
            mode,
            0,
            0,
            1,
            0,
            length,
            0,
            0,
            0,
            0,
            name_length,
            0,
        ] {
            header.push_str(&format!("{field:08x}"));
        }
        header.push_str(path);
        header.push('\0');
        self.padded(header.as_bytes())?;
        self.padded(content)
    }

    fn padded(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.out.write_all(bytes)?;
        let over = bytes.len().next_multiple_of(ALIGN) - bytes.len();
        self.out.write_all(&[0; ALIGN][..over])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entry_is_padded_and_archive_ends_with_its_trailer() {
        let mut archive = Archive::new(Vec::new());
        archive.file("a", b"hello").unwrap();
        let bytes = archive.finish().unwrap();
        let text = String::from_utf8(bytes).unwrap();
        // A header of 110 bytes, the name with its zero, then content, each to a multiple of 4.
        assert_eq!(&text[..14], "07070100000001");
        assert_eq!(&text[110..120], "a\0hello\0\0\0");
        assert!(text[120..].starts_with("070701"));
        assert!(text.contains("TRAILER!!!\0"));
        assert_eq!(text.len() % ALIGN, 0);
    }
}
