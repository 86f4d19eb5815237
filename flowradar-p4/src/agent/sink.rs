//! Where flowsets go.

use std::fs;
use std::io::{self, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::time::Duration;

use flowradar_core::KeyKind;
use flowradar_core::flowset::SwitchName;

/// Flowsets of one name in a folder.
const NAMES_MAX: u32 = 10_000;

/// A flowset on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Delivery<'a> {
    /// The switch it is of.
    pub switch: &'a SwitchName,
    /// Its epoch.
    pub epoch: u64,
    /// Kind of its keys.
    pub key: KeyKind,
    /// The flowset.
    pub bytes: &'a [u8],
}

/// Takes flowsets, and returns only when they are safe: what was delivered is cleared in the switch.
///
/// Called from threads that may block.
pub trait FlowsetSink: Send + Sync {
    /// Takes a flowset.
    ///
    /// # Errors
    ///
    /// If it is not safe; it will be delivered again, so delivering twice must do no harm.
    fn deliver(&mut self, delivery: Delivery<'_>) -> io::Result<()>;
}

/// Writes each flowset to a file `SWITCH-EPOCH-v4.flowset` of a folder, whole or not at all.
///
/// Nothing is overwritten: if another flowset has the name already (a switch that restarts begins with
/// epoch 0 again), the name is `SWITCH-EPOCH-v4.2.flowset`, and so on.
#[derive(Clone, Debug)]
pub struct DirectorySink {
    folder: PathBuf,
}

/// Sends flowsets over a TCP connection, one after the other, each after its length (4 bytes, big-endian).
/// A flowset counts as delivered when the other side has sent one byte, 0x06, for it.
#[derive(Debug)]
pub struct TcpSink {
    address: String,
    timeout: Duration,
    stream: Option<TcpStream>,
}

impl DirectorySink {
    /// Writes to `folder`, which is made if it is not there.
    ///
    /// # Errors
    ///
    /// If it cannot be made.
    pub fn new(folder: impl Into<PathBuf>) -> io::Result<Self> {
        let folder = folder.into();
        fs::create_dir_all(&folder)?;
        Ok(Self { folder })
    }

    /// Where a flowset is written.
    pub fn path(&self, switch: &SwitchName, epoch: u64, key: KeyKind) -> PathBuf {
        let kind = match key {
            KeyKind::V4 => "v4",
            KeyKind::V6 => "v6",
        };
        self.folder.join(format!("{switch}-{epoch}-{kind}.flowset"))
    }
}

impl FlowsetSink for DirectorySink {
    fn deliver(&mut self, delivery: Delivery<'_>) -> io::Result<()> {
        let path = self.path(delivery.switch, delivery.epoch, delivery.key);
        let mut names = (1..NAMES_MAX).map(|number| match number {
            1 => path.clone(),
            number => path.with_extension(format!("{number}.flowset")),
        });
        let path = loop {
            let Some(path) = names.next() else {
                return Err(io::Error::new(
                    io::ErrorKind::AlreadyExists,
                    format!("too many flowsets are named like {}", path.display()),
                ));
            };
            match fs::read(&path) {
                Ok(bytes) if bytes == delivery.bytes => return Ok(()),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => break path,
                Err(error) => return Err(error),
            }
        };
        let unfinished = path.with_extension("part");
        let mut file = fs::File::create(&unfinished)?;
        file.write_all(delivery.bytes)?;
        file.sync_all()?;
        fs::rename(&unfinished, &path)?;
        sync_folder(&self.folder)
    }
}

impl TcpSink {
    /// Byte that says that a flowset is safe.
    pub const ACKNOWLEDGEMENT: u8 = 0x06;

    /// Sends to `address` (`host:port`); connects when there is something to send, and again after errors.
    pub fn new(address: impl Into<String>, timeout: Duration) -> Self {
        Self {
            address: address.into(),
            timeout,
            stream: None,
        }
    }

    fn connect(&self) -> io::Result<TcpStream> {
        let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
        for address in self.address.to_socket_addrs()? {
            match TcpStream::connect_timeout(&address, self.timeout) {
                Ok(stream) => {
                    stream.set_read_timeout(Some(self.timeout))?;
                    stream.set_write_timeout(Some(self.timeout))?;
                    stream.set_nodelay(true)?;
                    return Ok(stream);
                }
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    fn send(stream: &mut TcpStream, bytes: &[u8]) -> io::Result<()> {
        let length = u32::try_from(bytes.len()).map_err(|_| {
            io::Error::new(io::ErrorKind::InvalidInput, "a flowset of more than 4 GiB")
        })?;
        stream.write_all(&length.to_be_bytes())?;
        stream.write_all(bytes)?;
        let mut answer = [0];
        io::Read::read_exact(stream, &mut answer)?;
        if answer != [Self::ACKNOWLEDGEMENT] {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "the collector did not acknowledge the flowset",
            ));
        }
        Ok(())
    }
}

impl FlowsetSink for TcpSink {
    fn deliver(&mut self, delivery: Delivery<'_>) -> io::Result<()> {
        let mut stream = match self.stream.take() {
            Some(stream) => stream,
            None => self.connect()?,
        };
        Self::send(&mut stream, delivery.bytes)?;
        self.stream = Some(stream);
        Ok(())
    }
}

/// So that a file's new name survives a loss of power.
fn sync_folder(folder: &Path) -> io::Result<()> {
    fs::File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::net::TcpListener;
    use std::thread;

    use super::*;

    fn delivery<'a>(switch: &'a SwitchName, bytes: &'a [u8]) -> Delivery<'a> {
        Delivery {
            switch,
            epoch: 7,
            key: KeyKind::V4,
            bytes,
        }
    }

    #[test]
    fn files_are_whole_and_may_be_written_twice() {
        let folder = tempfile::tempdir().expect("a folder");
        let switch: SwitchName = "s1".parse().expect("a name");
        let mut sink = DirectorySink::new(folder.path().join("new")).expect("a folder");
        for _ in 0..2 {
            sink.deliver(delivery(&switch, b"flowset")).expect("space");
        }
        let folder = folder.path().join("new");
        let read = |name: &str| fs::read(folder.join(name)).expect("it is there");
        let files = || fs::read_dir(&folder).expect("a folder").count();
        assert_eq!(read("s1-7-v4.flowset"), b"flowset");
        assert_eq!(files(), 1);
        sink.deliver(delivery(&switch, b"another")).expect("space");
        assert_eq!(read("s1-7-v4.flowset"), b"flowset");
        assert_eq!(read("s1-7-v4.2.flowset"), b"another");
        assert_eq!(files(), 2);
    }

    #[test]
    fn what_is_not_acknowledged_is_not_delivered() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let server = thread::spawn(move || {
            let mut received = Vec::new();
            for answer in [
                Some(TcpSink::ACKNOWLEDGEMENT),
                None,
                Some(TcpSink::ACKNOWLEDGEMENT),
            ] {
                let (mut stream, _) = listener.accept().expect("a connection");
                let mut length = [0; 4];
                stream.read_exact(&mut length).expect("a length");
                let mut bytes = vec![0; u32::from_be_bytes(length) as usize];
                stream.read_exact(&mut bytes).expect("a flowset");
                if let Some(answer) = answer {
                    stream.write_all(&[answer]).expect("the client listens");
                }
                received.push(bytes);
            }
            received
        });
        let switch: SwitchName = "s1".parse().expect("a name");
        let mut sink = TcpSink::new(address.to_string(), Duration::from_secs(60));
        sink.deliver(delivery(&switch, b"first"))
            .expect("acknowledged");
        // The server has closed the connection: the second is sent in vain, or received and not answered.
        while sink.deliver(delivery(&switch, b"second")).is_err() {}
        let received = server.join().expect("no panic");
        assert_eq!(received[0], b"first");
        assert_eq!(received[2], b"second");
    }
}
