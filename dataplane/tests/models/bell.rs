//! An eventfd as the scheduler sees it: a counter, and a sleeper that wakes while it is not zero.

use shuttle::sync::{Condvar, Mutex};

pub(crate) struct Bell {
    count: Mutex<u64>,
    rung: Condvar,
}

impl Bell {
    pub(crate) fn new() -> std::io::Result<Bell> {
        Ok(Bell {
            count: Mutex::new(0),
            rung: Condvar::new(),
        })
    }

    pub(crate) fn ring(&self) {
        *self.count.lock().unwrap() += 1;
        self.rung.notify_all();
    }

    pub(crate) fn silence(&self) {
        *self.count.lock().unwrap() = 0;
    }

    /// What `poll` does: returns at once while it rings, and never by itself.
    pub(crate) fn wait(&self) {
        let count = self.count.lock().unwrap();
        drop(self.rung.wait_while(count, |count| *count == 0).unwrap());
    }
}
