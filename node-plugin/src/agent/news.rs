//! What happened without a word in the store: to one object, or to all of a kind.

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;

/// Objects of one kind that have to be looked at. Told from any thread, heard by one loop.
#[derive(Debug, Default)]
pub(super) struct News {
    said: Mutex<Said>,
    bell: Notify,
}

/// What was told since it was last heard.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Said {
    /// Something that concerns every object.
    pub(super) of_all: bool,
    /// Names of objects that something happened to.
    pub(super) names: BTreeSet<String>,
}

impl News {
    /// Something happened to the object of this name. Never blocks for long.
    pub(super) fn of(&self, name: &str) {
        self.said().names.insert(name.to_owned());
        self.bell.notify_one();
    }

    /// Something happened that may concern all objects.
    pub(super) fn of_all(&self) {
        self.said().of_all = true;
        self.bell.notify_one();
    }

    /// Waits for news and takes them. Cancel-safe: nothing is awaited once the bell was heard.
    pub(super) async fn next(&self) -> Said {
        self.bell.notified().await;
        std::mem::take(&mut *self.said())
    }

    /// A set of names is one whatever panicked.
    fn said(&self) -> MutexGuard<'_, Said> {
        self.said.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn news_told_before_anybody_listens_are_heard_once() {
        let news = News::default();
        news.of("a");
        news.of("b");
        news.of_all();
        let said = news.next().await;
        assert!(said.of_all);
        assert_eq!(said.names, BTreeSet::from(["a".into(), "b".into()]));
        news.of("c");
        let said = news.next().await;
        assert!(!said.of_all);
        assert_eq!(said.names, BTreeSet::from(["c".into()]));
    }
}
