//! Where the program is attached to an interface: in the driver, else behind it, else nowhere, and why. Pure but for the attempt
//! itself.

use std::io;

use crate::{base::XdpAttachMode, config::model::XdpMode, sys::bpf::XdpPlace};

/// An interface that is to run the program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Interface<'a> {
    /// Its index.
    pub index: u32,
    /// Its name.
    pub name: &'a str,
    /// Whether it is a loopback interface.
    pub is_loopback: bool,
    /// Whether it is one end of a veth pair.
    pub is_veth: bool,
}

/// Where the program is attached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attached {
    /// Where.
    pub mode: XdpAttachMode,
    /// Why not better, for the operator; empty where it is in the driver.
    pub why: String,
}

/// Drivers without it say the same as some that cannot turn off what does not go with it.
const NO_NATIVE: &str = "its driver has no native XDP, or none for what is turned on (virtio_net: guest offloads of large packets that \
                         the hypervisor does not let it turn off)";

/// Why the kernel does not attach it.
#[derive(Debug)]
pub struct Refusal(pub io::Error);

/// Tries the places that the mode has, best first.
pub fn first_that_works<L>(
    to: &Interface<'_>,
    mode: XdpMode,
    mut attempt: impl FnMut(XdpPlace) -> Result<L, Refusal>,
) -> (Attached, Option<L>) {
    let none = |why: String| {
        let mode = XdpAttachMode::None;
        (Attached { mode, why }, None)
    };
    if to.is_loopback {
        return none("a loopback interface has no packets for it".to_owned());
    }
    let (places, mut why) = places(to, mode);
    for place in places {
        let refusal = match attempt(*place) {
            Ok(link) => {
                let attached = Attached {
                    mode: attach_mode(*place),
                    why,
                };
                return (attached, Some(link));
            }
            Err(refusal) => refusal,
        };
        if refusal.is_of_another() {
            return none(refusal.text(*place));
        }
        if !why.is_empty() {
            why.push_str("; ");
        }
        why.push_str(&refusal.text(*place));
    }
    none(why)
}

/// What it is where the program has been attached since before the restart; `None` where the mode does not have that place, or
/// has a better one that was not tried because it was not to be (`by_choice`).
#[must_use]
pub fn as_before(to: &Interface<'_>, mode: XdpMode, place: XdpPlace, by_choice: bool) -> Option<Attached> {
    let (places, why) = places(to, mode);
    let at = places.iter().position(|possible| *possible == place)?;
    let why = match at {
        _ if to.is_loopback => return None,
        0 => why,
        _ if by_choice => return None,
        _ => {
            "native XDP was not possible when it was attached, before convey's restart; it is tried again after `systemctl stop` and \
             `start`"
                .to_owned()
        }
    };
    Some(Attached {
        mode: attach_mode(place),
        why,
    })
}

/// The places to try, and why none that is better.
fn places(to: &Interface<'_>, mode: XdpMode) -> (&'static [XdpPlace], String) {
    match mode {
        XdpMode::Auto if to.is_veth => {
            let why = "it is a veth device, whose other end need not take frames that are sent by the driver";
            (&[XdpPlace::Stack], why.to_owned())
        }
        XdpMode::Auto => (&[XdpPlace::Driver, XdpPlace::Stack], String::new()),
        XdpMode::Native => (&[XdpPlace::Driver], String::new()),
        XdpMode::Generic => (&[XdpPlace::Stack], "xdp_mode is \"generic\"".to_owned()),
    }
}

const fn attach_mode(place: XdpPlace) -> XdpAttachMode {
    match place {
        XdpPlace::Driver => XdpAttachMode::Native,
        XdpPlace::Stack => XdpAttachMode::Generic,
    }
}

impl Refusal {
    /// Whether another program is there, which is not replaced.
    fn is_of_another(&self) -> bool {
        matches!(self.0.raw_os_error(), Some(libc::EBUSY | libc::EEXIST))
    }

    fn text(&self, place: XdpPlace) -> String {
        let error = &self.0;
        if self.is_of_another() {
            return "another XDP program is attached to it, which convey does not replace: see `ip link show`".to_owned();
        }
        match (place, error.raw_os_error()) {
            (XdpPlace::Driver, Some(libc::EOPNOTSUPP)) => NO_NATIVE.to_owned(),
            (
                XdpPlace::Driver,
                Some(libc::EINVAL | libc::ERANGE | libc::ENOSPC | libc::ENOMEM | libc::EBADF),
            ) => {
                format!(
                    "its driver refuses native XDP ({error}): often for LRO or GRO_HW (`ethtool -K … lro off rx-gro-hw off`), too \
                     few queues (`ethtool -l`), or a large MTU; the kernel may say more in its log"
                )
            }
            (XdpPlace::Driver, _) => format!("native XDP cannot be attached ({error})"),
            (XdpPlace::Stack, Some(libc::EPERM | libc::EACCES)) => {
                format!("generic XDP cannot be attached ({error}): it takes CAP_NET_ADMIN and CAP_BPF")
            }
            (XdpPlace::Stack, _) => format!("generic XDP cannot be attached ({error})"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ETH: Interface<'_> = Interface {
        index: 2,
        name: "eth0",
        is_loopback: false,
        is_veth: false,
    };

    /// What becomes of it where the kernel answers with these errors, 0 for none; and the places that were tried.
    fn outcome(
        to: Interface<'_>,
        mode: XdpMode,
        answers: [i32; 2],
    ) -> (XdpAttachMode, String, Vec<XdpPlace>) {
        let mut tried = Vec::new();
        let (attached, link) = first_that_works(&to, mode, |place| {
            tried.push(place);
            let answer = match place {
                XdpPlace::Driver => answers[0],
                XdpPlace::Stack => answers[1],
            };
            match answer {
                0 => Ok(()),
                errno => Err(Refusal(io::Error::from_raw_os_error(errno))),
            }
        });
        assert_eq!(link.is_some(), attached.mode != XdpAttachMode::None);
        (attached.mode, attached.why, tried)
    }

    #[test]
    fn the_driver_comes_first_and_needs_no_reason() {
        let (mode, why, tried) = outcome(ETH, XdpMode::Auto, [0, 0]);
        assert_eq!((mode, why.as_str()), (XdpAttachMode::Native, ""));
        assert_eq!(tried, [XdpPlace::Driver]);
    }

    #[test]
    fn a_driver_without_it_is_named_and_the_kernel_stands_in() {
        let (mode, why, _) = outcome(ETH, XdpMode::Auto, [libc::EOPNOTSUPP, 0]);
        assert_eq!((mode, why.as_str()), (XdpAttachMode::Generic, NO_NATIVE));
        let (mode, why, _) = outcome(ETH, XdpMode::Auto, [libc::EINVAL, libc::EPERM]);
        assert_eq!(mode, XdpAttachMode::None);
        assert!(
            why.contains("lro off") && why.contains("; generic XDP cannot"),
            "{why}"
        );
    }

    #[test]
    fn what_the_operator_chose_is_tried_alone() {
        let (mode, why, tried) = outcome(ETH, XdpMode::Native, [libc::EOPNOTSUPP, 0]);
        assert_eq!((mode, why.as_str()), (XdpAttachMode::None, NO_NATIVE));
        assert_eq!(tried, [XdpPlace::Driver]);
        let (mode, why, tried) = outcome(ETH, XdpMode::Generic, [0, 0]);
        assert_eq!(
            (mode, why.as_str()),
            (XdpAttachMode::Generic, "xdp_mode is \"generic\"")
        );
        assert_eq!(tried, [XdpPlace::Stack]);
    }

    #[test]
    fn a_veth_device_runs_it_behind_its_driver_unless_told_otherwise() {
        let veth = Interface { is_veth: true, ..ETH };
        let (mode, why, tried) = outcome(veth, XdpMode::Auto, [0, 0]);
        assert_eq!((mode, tried), (XdpAttachMode::Generic, vec![XdpPlace::Stack]));
        assert!(why.contains("other end"), "{why}");
        assert_eq!(outcome(veth, XdpMode::Native, [0, 0]).0, XdpAttachMode::Native);
    }

    #[test]
    fn a_loopback_interface_runs_none() {
        let lo = Interface {
            is_loopback: true,
            ..ETH
        };
        for mode in [XdpMode::Auto, XdpMode::Native, XdpMode::Generic] {
            let (mode, why, tried) = outcome(lo, mode, [0, 0]);
            assert_eq!((mode, tried), (XdpAttachMode::None, vec![]));
            assert!(why.contains("loopback"), "{why}");
        }
    }

    #[test]
    fn somebody_elses_program_stays_and_nothing_else_is_tried() {
        for errno in [libc::EBUSY, libc::EEXIST] {
            let (mode, why, tried) = outcome(ETH, XdpMode::Auto, [errno, 0]);
            assert_eq!((mode, tried.len()), (XdpAttachMode::None, 1));
            assert!(why.starts_with("another XDP program"), "{why}");
        }
    }
}
