//! `lvs_timeouts` of `global_defs`: how long the kernel keeps idle connections of all virtual servers.

use super::{Names, blocks::Entry};
use crate::import::{
    At, Draft,
    lvs::{Said, Service},
};

/// Times in seconds, where they are said.
#[derive(Debug, Default)]
pub struct Timeouts {
    tcp: Option<Said<u64>>,
    fin: Option<Said<u64>>,
    udp: Option<Said<u64>>,
}

/// Most seconds that the kernel takes: as milliseconds they are a positive number of 32 bits.
const MOST: u64 = 2_147_483;

impl Timeouts {
    /// Reads those of a file; the last one of a kind counts.
    pub fn read(entries: &[Entry], names: &Names<'_>, draft: &mut Draft) -> Self {
        let mut times = Self::default();
        let blocks = entries.iter().filter(|entry| entry.keyword() == "global_defs");
        let members = blocks.flat_map(|block| block.block.iter().flatten());
        let is_used = entries.iter().any(|entry| entry.keyword() == "virtual_server");
        for member in members.filter(|member| member.keyword() == "lvs_timeouts") {
            let id = names.register(member, draft);
            match times.take(member, id) {
                Some(()) if is_used => draft.translated(id),
                Some(()) => draft.no_equal(id, At::Top, "there is no virtual_server that it could be for"),
                None => draft.no_equal(
                    id,
                    At::Top,
                    "it is not all of `tcp`, `tcpfin` and `udp` with seconds from 1 to 2147483: see idle_timeout and fin_timeout",
                ),
            }
        }
        times
    }

    /// `None` if a part of it cannot be read; the others count.
    fn take(&mut self, member: &Entry, id: crate::import::DirectiveId) -> Option<()> {
        let mut is_read = member.words.len() > 1;
        for pair in member.words.get(1..).unwrap_or_default().chunks(2) {
            let [name, value] = pair else { return None };
            let value = value
                .parse::<u64>()
                .ok()
                .filter(|value| (1..=MOST).contains(value));
            let said = value.map(|value| Said {
                id,
                words: member.text.clone(),
                value,
            });
            let place = match name.as_str() {
                "tcp" => &mut self.tcp,
                "tcpfin" => &mut self.fin,
                "udp" => &mut self.udp,
                _ => return None,
            };
            is_read &= said.is_some();
            *place = said.or(place.take());
        }
        is_read.then_some(())
    }

    /// Of a virtual server, too.
    pub fn apply(&self, service: &mut Service) {
        service.idle_tcp.clone_from(&self.tcp);
        service.idle_fin.clone_from(&self.fin);
        service.idle_udp.clone_from(&self.udp);
    }
}

#[cfg(test)]
mod tests {
    use crate::import::{InputFile, Kind, NoFiles, translate};

    fn text(defs: &str, server: &str) -> String {
        let text = format!(
            "global_defs {{\n {defs}\n}}\nvirtual_server_group g {{\n 192.0.2.1 1-65535\n}}\nvirtual_server_group h {{\n 192.0.2.1 80\n}}\n\
             virtual_server {server} {{\n lb_kind NAT\n protocol TCP\n real_server 10.0.0.1 80 {{\n }}\n}}\n"
        );
        let file = InputFile::new("keepalived.conf", text.as_bytes());
        let imported = translate(Kind::Keepalived, &file, &mut NoFiles).expect("a configuration");
        // lines are folded
        imported.text.replace("\n#   ", " ")
    }

    #[test]
    fn timeouts_of_the_kernel_are_those_of_frontends() {
        let all = text("lvs_timeouts tcp 1800 tcpfin 60 udp 100", "192.0.2.1 80");
        assert!(
            all.contains("idle_timeout = \"30m\"\nfin_timeout = \"1m\"\n"),
            "{all}"
        );
        let wrong = text("lvs_timeouts tcp many tcpfin 60", "192.0.2.1 80");
        assert!(
            wrong.contains("`lvs_timeouts tcp many tcpfin 60` has no equal: it is not all of"),
            "{wrong}"
        );
        assert!(
            wrong.contains("idle_timeout = \"15m\"\nfin_timeout = \"1m\"\n"),
            "{wrong}"
        );
    }

    #[test]
    fn what_a_group_lacks_is_said_of_the_line_that_lacks_it() {
        let ports = text("", "group g 80");
        assert!(
            ports.contains("`192.0.2.1 1-65535` has no equal: a service on every port"),
            "{ports}"
        );
        assert!(
            ports.contains("no line of its group became an address"),
            "{ports}"
        );
        assert!(
            !ports.contains("`virtual_server_group g` has no equal"),
            "{ports}"
        );
        let extra = text("", "group h 80");
        assert!(
            extra.contains("`80` differs: a group has its ports in itself"),
            "{extra}"
        );
        assert!(extra.contains("listen_addr = \"192.0.2.1:80\"\n"), "{extra}");
        let both = text("", "group gone 80");
        assert!(both.contains("`80` differs: a group"), "{both}");
    }
}
