//! What a listening TCP socket does before a connection is accepted.

use std::{
    io,
    os::fd::{AsFd, AsRawFd as _},
};

use socket2::SockRef;

use super::listener::BACKLOG;
use crate::base::ListenerOptions;

/// Fast opens that may be under way, each of which holds memory for whoever forges addresses; the kernel clamps it to the
/// backlog. As many as handshakes without SYN cookies on a stock host (net.ipv4.tcp_max_syn_backlog is 128 to 4,096).
const FAST_OPENS: libc::c_int = 1_024;

/// Seconds that a connection without data waits: HAProxy's and nginx's, too.
const DEFERRED: libc::c_int = 1;

/// Sets what a socket that listens does from now on.
///
/// # Errors
/// What setsockopt(2) or listen(2) says.
pub fn set(socket: &impl AsFd, options: ListenerOptions) -> io::Result<()> {
    let fast_opens = if options.fast_open { FAST_OPENS } else { 0 };
    set_tcp(socket, libc::TCP_FASTOPEN, fast_opens)?;
    let deferred = if options.defer_accept { DEFERRED } else { 0 };
    set_tcp(socket, libc::TCP_DEFER_ACCEPT, deferred)?;
    set_backlog(socket, options)
}

/// Sets the one of them that a unix socket has, too.
///
/// # Errors
/// What listen(2) says.
pub fn set_backlog(socket: &impl AsFd, options: ListenerOptions) -> io::Result<()> {
    let backlog = options
        .backlog
        .map_or(BACKLOG, |backlog| i32::try_from(backlog.get()).unwrap_or(BACKLOG));
    // of a socket that listens only the backlog changes
    SockRef::from(socket).listen(backlog)
}

fn set_tcp(socket: &impl AsFd, option: libc::c_int, value: libc::c_int) -> io::Result<()> {
    // SAFETY: the option's value is read from `value`, which outlives the call, and has the size that is given.
    let set = unsafe {
        libc::setsockopt(
            socket.as_fd().as_raw_fd(),
            libc::IPPROTO_TCP,
            option,
            (&raw const value).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    if set == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::Write as _,
        net::{TcpListener, TcpStream},
        num::NonZeroU32,
        time::Duration,
    };

    use super::*;

    fn listener(options: ListenerOptions) -> TcpListener {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        set(&listener, options).unwrap();
        listener
    }

    fn get(socket: &TcpListener, option: libc::c_int) -> libc::c_int {
        let mut value: libc::c_int = 0;
        let mut size = size_of::<libc::c_int>() as libc::socklen_t;
        // SAFETY: both pointers are to values that outlive the call, of the size that is given.
        let got = unsafe {
            libc::getsockopt(
                socket.as_raw_fd(),
                libc::IPPROTO_TCP,
                option,
                (&raw mut value).cast(),
                &raw mut size,
            )
        };
        assert_eq!(got, 0);
        value
    }

    #[test]
    fn options_can_be_turned_on_and_off_while_it_listens() {
        let all = ListenerOptions {
            fast_open: true,
            defer_accept: true,
            backlog: None,
        };
        let listener = listener(all);
        assert_eq!(get(&listener, libc::TCP_FASTOPEN), FAST_OPENS);
        assert!(get(&listener, libc::TCP_DEFER_ACCEPT) > 0);
        set(&listener, ListenerOptions::default()).unwrap();
        assert_eq!(
            (
                get(&listener, libc::TCP_FASTOPEN),
                get(&listener, libc::TCP_DEFER_ACCEPT)
            ),
            (0, 0)
        );
    }

    #[test]
    fn a_deferred_connection_is_accepted_with_its_first_data() {
        let listener = listener(ListenerOptions {
            defer_accept: true,
            ..ListenerOptions::default()
        });
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        assert_eq!(listener.accept().unwrap_err().kind(), io::ErrorKind::WouldBlock);
        client.write_all(b"x").unwrap();
        assert!(listener.accept().is_ok());
    }

    #[test]
    fn connections_beyond_the_backlog_wait_for_their_handshake() {
        let listener = listener(ListenerOptions {
            backlog: NonZeroU32::new(2),
            ..ListenerOptions::default()
        });
        let addr = listener.local_addr().unwrap();
        let connect = || TcpStream::connect_timeout(&addr, Duration::from_millis(200));
        // the kernel takes one more than the backlog
        let open: Vec<_> = (0..3).map(|_| connect().unwrap()).collect();
        assert_eq!(connect().unwrap_err().kind(), io::ErrorKind::TimedOut);
        drop(open);
    }
}
