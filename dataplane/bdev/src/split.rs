//! A part of another device, put together from extents. Ranges are checked in the volume's own space and then
//! shifted, so that no request can reach what belongs to a neighbour.
#![allow(unsafe_code)] // Cuts iovec arrays of requests that cross from one extent to the next.

mod layout;

use crate::{BdevError, BlockDevice, Driver, Info, Io, IoChannel, IoStatus, Op};
pub use layout::Extent;
use layout::{Layout, Part};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// A volume: extents of a base device, in the order of the volume's bytes. It grows while in use.
#[derive(Clone, Debug)]
pub struct Split {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    base: Arc<dyn BlockDevice>,
    layout: Mutex<Arc<Layout>>,
    /// Counts layouts, so that channels see with one load that theirs is old.
    generation: AtomicU64,
    size_bytes: AtomicU64,
}

impl Split {
    /// A volume of these extents of `base`.
    ///
    /// # Errors
    /// [`BdevError::Invalid`] if an extent is empty, not made of whole blocks, past the end of the base, or
    /// overlaps another, or if there is none.
    pub fn new(base: Arc<dyn BlockDevice>, extents: Vec<Extent>) -> Result<Split, BdevError> {
        let layout = Layout::new(extents, &base.info())?;
        let size_bytes = AtomicU64::new(layout.size_bytes());
        Ok(Split {
            shared: Arc::new(Shared {
                base,
                layout: Mutex::new(Arc::new(layout)),
                generation: AtomicU64::new(0),
                size_bytes,
            }),
        })
    }

    /// Grows the volume: more extents, or a longer last one. Bytes that exist keep their place. Open channels
    /// follow with their next request.
    ///
    /// # Errors
    /// As for [`Split::new`], and if a byte of the volume would move or vanish; then nothing has changed.
    pub fn set_extents(&self, extents: Vec<Extent>) -> Result<(), BdevError> {
        let next = Layout::new(extents, &self.shared.base.refresh()?)?;
        let mut layout = self
            .shared
            .layout
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        next.check_extends(&layout)?;
        let size_bytes = next.size_bytes();
        *layout = Arc::new(next);
        // Before the size: who has read the new size finds the new layout.
        self.shared.generation.fetch_add(1, Ordering::Release);
        self.shared.size_bytes.store(size_bytes, Ordering::Release);
        Ok(())
    }

    /// The extents, neighbours merged.
    pub fn extents(&self) -> Vec<Extent> {
        self.shared.current().extents()
    }

    fn each_part(
        &self,
        offset: u64,
        len: u64,
        mut act: impl FnMut(Part) -> Result<(), BdevError>,
    ) -> Result<(), BdevError> {
        self.info().check_span(offset, len)?;
        let layout = self.shared.current();
        layout.parts(offset, len).try_for_each(&mut act)
    }
}

impl Shared {
    fn current(&self) -> Arc<Layout> {
        // The layout is replaced in one step, so it is whole whatever panicked.
        Arc::clone(&self.layout.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn info(&self, size_bytes: u64) -> Info {
        Info {
            size_bytes,
            kind: "split",
            ..self.base.info()
        }
    }
}

impl BlockDevice for Split {
    fn info(&self) -> Info {
        self.shared
            .info(self.shared.size_bytes.load(Ordering::Acquire))
    }

    fn refresh(&self) -> Result<Info, BdevError> {
        self.shared.base.refresh().map(|_| self.info())
    }

    fn open_channel(&self, driver: &mut Driver) -> Result<Box<dyn IoChannel>, BdevError> {
        // Before the layout: a change in between is then noticed by the first request.
        let generation = self.shared.generation.load(Ordering::Acquire);
        let layout = self.shared.current();
        Ok(Box::new(SplitChannel {
            base: self.shared.base.open_channel(driver)?,
            info: self.shared.info(layout.size_bytes()),
            shared: Arc::clone(&self.shared),
            layout,
            generation,
        }))
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<(), BdevError> {
        let (len, mut rest) = (buf.len() as u64, buf);
        self.each_part(offset, len, |part| {
            let (now, later) = std::mem::take(&mut rest).split_at_mut(part.bytes());
            rest = later;
            self.shared.base.read_at(part.offset, now)
        })
    }

    fn write_at(&self, offset: u64, buf: &[u8]) -> Result<(), BdevError> {
        let mut rest = buf;
        self.each_part(offset, buf.len() as u64, |part| {
            let (now, later) = rest.split_at(part.bytes());
            rest = later;
            self.shared.base.write_at(part.offset, now)
        })
    }

    fn write_zeroes_at(&self, offset: u64, len: u64) -> Result<(), BdevError> {
        self.each_part(offset, len, |part| {
            self.shared.base.write_zeroes_at(part.offset, part.len)
        })
    }

    fn flush(&self) -> Result<(), BdevError> {
        self.shared.base.flush()
    }
}

struct SplitChannel {
    base: Box<dyn IoChannel>,
    shared: Arc<Shared>,
    layout: Arc<Layout>,
    info: Info,
    generation: u64,
}

impl IoChannel for SplitChannel {
    fn submit(&mut self, driver: &mut Driver, io: Io) {
        self.follow();
        if let Err(status) = self.info.check(&io) {
            return driver.complete(io.token(), status);
        }
        if io.op() == Op::Flush {
            return self.base.submit(driver, io);
        }
        if io.is_empty() {
            return driver.complete(io.token(), IoStatus::Ok);
        }
        let first = self.layout.first_part(io.offset(), io.len());
        if first.len == io.len() {
            return self.base.submit(driver, io.at(first.offset));
        }
        self.submit_parts(driver, &io);
    }

    fn is_memory(&self) -> bool {
        self.base.is_memory()
    }

    fn expect(&mut self, offset: u64, len: u64) {
        if len > 0 && self.info.check_span(offset, len).is_ok() {
            let first = self.layout.first_part(offset, len);
            self.base.expect(first.offset, first.len);
        }
    }
}

impl SplitChannel {
    /// Takes over a layout that was set since the last request.
    fn follow(&mut self) {
        let generation = self.shared.generation.load(Ordering::Acquire);
        if generation != self.generation {
            self.generation = generation;
            self.layout = self.shared.current();
            self.info = self.shared.info(self.layout.size_bytes());
        }
    }

    fn submit_parts(&mut self, driver: &mut Driver, io: &Io) {
        let parts: Vec<Part> = self.layout.parts(io.offset(), io.len()).collect();
        let count = u32::try_from(parts.len()).expect("fewer parts than blocks in a request");
        // SAFETY: the request is not complete yet.
        let arrays = cut(unsafe { io.iovecs() }, &parts);
        let cuts: Vec<(*const libc::iovec, usize)> = arrays
            .iter()
            .map(|array| (array.as_ptr(), array.len()))
            .collect();
        let token = driver.join_keeping(io.token(), count, arrays);
        for (part, (iov, len)) in parts.iter().zip(cuts) {
            let part = match io.op() {
                // SAFETY: the join keeps the array until the last part has completed, and the maker of the
                // request keeps the buffers until then.
                Op::Read | Op::Write => unsafe {
                    Io::with_buffers(
                        io.op(),
                        part.offset,
                        std::slice::from_raw_parts(iov, len),
                        token,
                    )
                },
                op => Io::without_buffers(op, part.offset, part.len, token),
            };
            self.base.submit(driver, part);
        }
    }
}

/// The buffers of each part, as arrays of their own (empty ones if the request has no buffers).
fn cut(iovecs: &[libc::iovec], parts: &[Part]) -> Vec<Box<[libc::iovec]>> {
    let mut rest = iovecs.iter().copied();
    let mut head: Option<libc::iovec> = None;
    let mut arrays = Vec::with_capacity(parts.len());
    for part in parts {
        let (mut array, mut left) = (Vec::new(), part.bytes());
        while left > 0
            && let Some(mut buffer) = head.take().or_else(|| rest.next())
        {
            if buffer.iov_len > left {
                let (base, len) = (buffer.iov_base.cast::<u8>(), buffer.iov_len - left);
                // SAFETY: `left` is inside the buffer.
                let iov_base = unsafe { base.add(left) }.cast();
                head = Some(libc::iovec {
                    iov_base,
                    iov_len: len,
                });
                buffer.iov_len = left;
            }
            left -= buffer.iov_len;
            array.push(buffer);
        }
        arrays.push(array.into_boxed_slice());
    }
    arrays
}
