//! The shards' queues as tasks read them.

use std::io;
use strowger_runtime::post::Mail;
use tokio::net::UnixStream;

/// A queue, and the ear that its bell is heard by.
#[derive(Debug)]
pub struct Inbox<T> {
    mail: Mail<T>,
    ear: UnixStream,
}

impl<T> Inbox<T> {
    /// To be made where tasks run.
    ///
    /// # Errors
    /// When the process is out of descriptors.
    pub fn new(mail: Mail<T>) -> io::Result<Inbox<T>> {
        let ear = UnixStream::from_std(mail.ear()?)?;
        Ok(Inbox { mail, ear })
    }

    /// What came first, if there is anything.
    #[must_use]
    pub fn take(&self) -> Option<T> {
        self.mail.take()
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.mail.len()
    }

    /// Whether there is nothing now.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.mail.is_empty()
    }

    /// The next; `None`: there will be none. May be dropped before: nothing is lost.
    pub async fn recv(&self) -> Option<T> {
        loop {
            if let Some(item) = self.mail.take() {
                return Some(item);
            }
            if self.mail.arm() {
                // Else the runtime ends.
                self.ear.readable().await.ok()?;
                self.mail.disarm();
                // Until there is nothing to read: that it is readable is over then.
                while self.ear.try_read(&mut [0; 64]).is_ok_and(|n| n > 0) {}
            } else if self.mail.is_over() {
                return None;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;
    use strowger_runtime::post::post;

    #[tokio::test]
    async fn a_task_is_woken_by_each_that_comes_and_by_the_end() {
        let (post, mail) = post(4).unwrap();
        let inbox = Inbox::new(mail).unwrap();
        let sender = std::thread::spawn(move || {
            for item in 0..2000 {
                while post.send(item).is_err() {
                    std::thread::yield_now();
                }
                if item % 10 == 0 {
                    std::thread::sleep(Duration::from_micros(100));
                }
            }
        });
        for item in 0..2000 {
            assert_eq!(inbox.recv().await, Some(item));
        }
        assert_eq!(inbox.recv().await, None);
        sender.join().unwrap();
    }

    #[tokio::test]
    async fn who_gives_up_waiting_loses_nothing() {
        let (post, mail) = post(4).unwrap();
        let inbox = Inbox::new(mail).unwrap();
        for item in 0..50 {
            let waited = tokio::time::timeout(Duration::from_millis(1), inbox.recv()).await;
            assert!(waited.is_err());
            post.send(item).unwrap();
            assert_eq!(inbox.recv().await, Some(item));
        }
    }
}
