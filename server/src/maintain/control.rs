//! The socket in the data directory on which the serving process takes maintenance.
//!
//! The data directory belongs to one process; whoever wants something of it while it is served asks
//! that process. The directory is its owner's alone (0700), and so is the socket.
//!
//! One connection, one task: a line of JSON ([`Task`]) goes in; its output comes back, then a NUL,
//! which is in no output, and how it ended.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream as BlockingStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufWriter};
use tokio::net::{UnixListener, UnixStream};

use super::Task;
use crate::blob::BlobStore;
use crate::collect::Policy;
use crate::data_dir::{DataDir, remove_if_there};
use crate::error::{Attempt, Error, Result};
use crate::limits::CONTROL_MESSAGE_BYTES;
use crate::meta::Metadata;
use crate::registry::Registry;

/// How a task ended, after the NUL.
#[derive(Debug, Serialize, Deserialize)]
enum End {
    /// Whether everything was well.
    Done(bool),
    /// Why it was not done.
    Failed(String),
}

/// Listens in a data directory this process has.
pub fn listen(data: &DataDir) -> Result<UnixListener> {
    let path = path(data.path());
    remove_if_there(&path)?;
    let (_directory, short) = short(data.path())?;
    Ok(UnixListener::bind(short).attempt(|| format!("listen on {}", path.display()))?)
}

/// Does what is asked, one task at a time, for as long as it is polled.
pub async fn serve<B: BlobStore, M: Metadata>(listener: UnixListener, registry: Arc<Registry<B, M>>, policy: Policy) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                if let Err(e) = answer(stream, &registry, &policy).await {
                    tracing::debug!("maintenance: {e}");
                }
            }
            Err(e) => {
                tracing::error!("accept on the control socket: {e}");
                tokio::time::sleep(std::time::Duration::from_millis(100)).await;
            }
        }
    }
}

async fn answer<B: BlobStore, M: Metadata>(stream: UnixStream, registry: &Registry<B, M>, policy: &Policy) -> io::Result<()> {
    let (read, write) = stream.into_split();
    let mut line = String::new();
    tokio::io::BufReader::new(read.take(CONTROL_MESSAGE_BYTES)).read_line(&mut line).await?;
    let mut write = BufWriter::new(write);
    let end = match serde_json::from_str::<Task>(&line) {
        Err(e) => End::Failed(format!("not a task: {e}")),
        Ok(task) => {
            tracing::info!(?task, "maintenance");
            match task.run(registry, policy, &mut write).await {
                Ok(well) => End::Done(well),
                Err(e) => End::Failed(e.to_string()),
            }
        }
    };
    write.write_u8(0).await?;
    write.write_all(&serde_json::to_vec(&end)?).await?;
    write.flush().await
}

/// Has the process that serves `data` do a task; its output goes to `out`. Gives whether everything
/// was well.
pub fn ask(data: &Path, task: &Task, out: &mut impl Write) -> Result<bool> {
    let attempted = || format!("ask the rhub that serves {}", data.display());
    let (_directory, short) = short(data)?;
    let mut stream = BlockingStream::connect(short).attempt(attempted)?;
    let line = serde_json::to_string(task).attempt(attempted)?;
    writeln!(stream, "{line}").attempt(attempted)?;
    let mut reader = BufReader::new(stream);
    loop {
        let bytes = reader.fill_buf().attempt(attempted)?;
        if bytes.is_empty() {
            return Err(longshore_runtime::Error::io(attempted(), io::ErrorKind::UnexpectedEof).into());
        }
        let (output, ended) = match bytes.iter().position(|byte| *byte == 0) {
            Some(at) => (&bytes[..at], true),
            None => (bytes, false),
        };
        out.write_all(output).attempt(|| "write the result")?;
        let used = output.len() + usize::from(ended);
        reader.consume(used);
        if ended {
            break;
        }
    }
    let mut end = String::new();
    reader.take(CONTROL_MESSAGE_BYTES).read_to_string(&mut end).attempt(attempted)?;
    match serde_json::from_str(&end).attempt(attempted)? {
        End::Done(well) => Ok(well),
        End::Failed(why) => Err(Error::Maintenance(why)),
    }
}

fn path(data: &Path) -> PathBuf {
    data.join("control")
}

/// The socket's path by way of the open directory: a socket's path must be short, a data directory's
/// need not be.
fn short(data: &Path) -> Result<(File, PathBuf)> {
    let directory = File::open(data).attempt(|| format!("open {}", data.display()))?;
    let short = path(&PathBuf::from(format!("/proc/self/fd/{}", directory.as_raw_fd())));
    Ok((directory, short))
}
