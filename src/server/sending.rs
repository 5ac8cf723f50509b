//! Sending from files without a copy: what stands before them, and then the file's pages as they lie in the page cache.

use std::io;
use std::io::IoSlice;
use std::task::Context;
use std::task::Poll;
use std::task::ready;

use rustix::io::Errno;
use rustix::net::SendAncillaryBuffer;
use rustix::net::SendFlags;
use tokio::io::Interest;
use tokio::net::TcpStream;

use crate::body::FileRange;
use crate::body::Outlet;

/// Sends `before`, and of `range` as much as the socket takes; how many bytes of both went out. The outlet is told of
/// those of the file.
///
/// # Errors
///
/// The socket's; or the file is shorter than it was: the connection must break, its answer can't be kept.
pub(super) fn poll_send(
    stream: &TcpStream,
    cx: &mut Context<'_>,
    before: &[IoSlice<'_>],
    range: &FileRange,
    outlet: &Outlet,
) -> Poll<io::Result<usize>> {
    loop {
        ready!(stream.poll_write_ready(cx))?;
        match stream.try_io(Interest::WRITABLE, || send(stream, before, range, outlet)) {
            // The socket is full, and was not when it was looked at.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            sent => return Poll::Ready(sent),
        }
    }
}

fn send(stream: &TcpStream, before: &[IoSlice<'_>], range: &FileRange, outlet: &Outlet) -> io::Result<usize> {
    let wanted: usize = before.iter().map(|slice| slice.len()).sum();
    if wanted > 0 {
        // The file's first bytes go into the same packet.
        let flags = SendFlags::MORE | SendFlags::NOSIGNAL;
        let sent = retried(|| rustix::net::sendmsg(stream, before, &mut SendAncillaryBuffer::default(), flags))?;
        if sent < wanted {
            return Ok(sent);
        }
    }
    let mut offset = range.offset;
    let count = usize::try_from(range.length).unwrap_or(usize::MAX);
    match retried(|| rustix::fs::sendfile(stream, &*range.file, Some(&mut offset), count)) {
        Ok(0) => {
            let error = io::Error::new(io::ErrorKind::UnexpectedEof, "the file is shorter than it was");
            outlet.broken(&error);
            Err(error)
        }
        Ok(sent) => {
            outlet.taken(sent);
            Ok(wanted + sent)
        }
        Err(Errno::AGAIN) if wanted > 0 => Ok(wanted),
        Err(Errno::IO) => {
            let error = Errno::IO.into();
            outlet.broken(&error);
            Err(error)
        }
        Err(error) => Err(error.into()),
    }
}

fn retried(mut call: impl FnMut() -> rustix::io::Result<usize>) -> rustix::io::Result<usize> {
    loop {
        match call() {
            Err(Errno::INTR) => {}
            done => return done,
        }
    }
}

#[cfg(test)]
mod tests;
