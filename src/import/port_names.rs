//! Ports by the names that `/etc/services` gives them.

/// The port of a service, by number or by name: those that are balanced anywhere.
#[must_use]
pub fn port(text: &str) -> Option<u16> {
    if text.starts_with(|c: char| c.is_ascii_digit()) {
        return text.parse().ok();
    }
    let port = match text {
        "ftp-data" => 20,
        "ftp" => 21,
        "ssh" => 22,
        "telnet" => 23,
        "smtp" | "mail" => 25,
        "domain" => 53,
        "tftp" => 69,
        "http" | "www" => 80,
        "kerberos" => 88,
        "pop3" | "pop-3" => 110,
        "sunrpc" => 111,
        "nntp" => 119,
        "ntp" => 123,
        "imap2" | "imap" => 143,
        "snmp" => 161,
        "snmp-trap" | "snmptrap" => 162,
        "ldap" => 389,
        "https" => 443,
        "microsoft-ds" => 445,
        "submissions" | "urd" | "ssmtp" | "smtps" => 465,
        "syslog" => 514,
        "submission" => 587,
        "ldaps" => 636,
        "domain-s" => 853,
        "imaps" => 993,
        "pop3s" => 995,
        "openvpn" => 1_194,
        "ms-sql-s" => 1_433,
        "radius" => 1_812,
        "radius-acct" => 1_813,
        "mqtt" => 1_883,
        "nfs" => 2_049,
        "squid" => 3_128,
        "mysql" => 3_306,
        "ms-wbt-server" => 3_389,
        "sip" => 5_060,
        "sip-tls" => 5_061,
        "xmpp-client" => 5_222,
        "postgresql" | "postgres" => 5_432,
        "amqps" => 5_671,
        "amqp" => 5_672,
        "http-alt" | "webcache" => 8_080,
        "secure-mqtt" => 8_883,
        "git" => 9_418,
        _ => return None,
    };
    Some(port)
}
