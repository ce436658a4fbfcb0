// What the API's labels mean, in the words that the rest of Convey has for them: a test of the daemon holds them to it.

export const ENDINGS = {
  normal: "both sides closed in order",
  rerouted: "while it waited for a server, a reload sent it to another backend; only counted, at the one that it left",
  client_abort: "the client reset it while data was flowing",
  client_lost: "the client has vanished: it answers nothing (see client_keepalive)",
  client_abort_connect: "the client went away before a server was connected",
  client_abort_queue: "the client went away while it waited for a server",
  client_abort_preamble:
    "the client went away before its PROXY header or ClientHello was complete; a health check of another load balancer that only connects does",
  server_abort:
    "the server reset it while data was flowing; in UDP: said that its port is closed, after it had answered",
  server_lost: "the server has vanished: it answers nothing (see server_keepalive)",
  server_connect: "no server could be connected: refused, unreachable or reset",
  no_server: "no server is eligible, nor one of a fallback; convey status says why",
  connect_timeout: "no server answered within connect_timeout; with TLS to it, none completed its handshake",
  server_tls: "the TLS handshake with the server failed: server_tls_failure in the log says why",
  queue_timeout: "no server had room within queue_timeout; add servers, or raise their max_connections",
  queue_full: "max_queue connections were waiting for a server already",
  client_timeout: "nothing moved for idle_timeout, or fin_timeout once one side had closed; the client was waited for",
  server_timeout: "nothing moved for idle_timeout, or fin_timeout once one side had closed; the server was waited for",
  server_down: 'its server went down, and the backend has on_down = "close"',
  killed: "convey reload --cut or the end of shutdown_timeout cut it",
  resource: "this host has no descriptor, source port or memory left for it",
  internal: "an error in convey itself; please report it",
  proxy_header:
    "no valid PROXY header where one is required; set proxy_protocol.required = false if clients connect directly, too",
  proxy_header_timeout: "its PROXY header took longer than proxy_protocol.timeout",
  client_hello: "its ClientHello is malformed, or longer than 64 KiB",
  client_hello_timeout: "its ClientHello took longer than client_hello_timeout",
  non_tls: 'it does not begin with a ClientHello, and non_tls is "reject"',
  unexpected_sni: "no route and no server expects the name that it asks for, or it asks for none (see unexpected_sni)",
  route_rejected: "a route has reject = true, or no route matches and the frontend has no backend",
  tls_handshake: "its TLS handshake failed, or what it sent before was no TLS: tls_failure in the log says why",
  tls_handshake_timeout: "its TLS handshake took longer than handshake_timeout",
  idle: "a UDP session on which nothing moved for idle_timeout",
  answered: "a UDP session that has had its udp.max_requests and udp.max_responses",
  servers_full: "a UDP session that found every eligible server at its max_connections: datagrams do not wait",
  client_source:
    'source = "client": no server of the backend has the family of the client\'s address, or that can be none of a connection through routers',
  no_source_socket:
    'source = "client" or server_socket.mark: the broker gave no socket in time; the log says why (no_source_sockets)',
  acme_challenge: "a CA has seen the proof that a name is ours (acme, TLS-ALPN-01)",
  max_lifetime: "it had lived for max_lifetime; the client may connect again",
  tls_handshakes_full: "max_handshakes TLS handshakes of the frontend were under way already",
  client_handshakes:
    "its network had begun limits.per_client.handshakes_per_second TLS handshakes; counted as refused, too",
  access_refused: "access rules or limits refuse the client that its PROXY header names; counted as refused, too",
};

export const REFUSALS = {
  denied: "access denies the client",
  client_connections: "the client's network has limits.per_client.connections open",
  client_rate: "the client's network has opened limits.per_client.new_per_second",
  frontend_rate: "all clients together have opened limits.new_per_second",
  client_ports: "the client's network holds [packet] max_ports_per_client NAT ports of the server (mode passthrough)",
  client_datagrams: "the client's network has sent limits.per_client.datagrams_per_second",
  client_handshakes: "the client's network has begun limits.per_client.handshakes_per_second TLS handshakes",
  untrusted_proxy: "a PROXY header is required, and the address that connects is not in proxy_protocol.from",
};

export const DATAGRAMS = {
  too_long: "it is longer than udp.buffer_size, or its PROXY header makes it too long",
  sessions_full: "it would begin a session, and the frontend has udp.max_sessions or max_connections open",
  process_full: "it would begin a session, and all connections that the limit of open files allows are in use",
  hand_over: "its session belongs to another worker, whose queue is full",
  queue_full: "it found the queue of its socket full: Convey was too slow, or the burst too long",
  not_unicast: "it was sent to a broadcast or multicast address",
  send_failed: "the kernel did not send it: a queue is full, or there is no route",
  removed: "it would begin a session at an address that a reload has removed",
  no_source_socket:
    'it would begin a session with source = "client" or a mark, and too many datagrams wait for a socket of the broker\'s',
};

export const TLS_FAILURES = {
  not_tls: "the server does not speak TLS on this port",
  incompatible: "the server has no version, cipher or group of TLS 1.2 or 1.3 that is safe",
  alpn: "the server speaks none of the protocols that alpn offers",
  certificate_expired: "the server's certificate has expired, or is not yet valid",
  certificate_name: "the server's certificate is for another name or address; set server_name to one that it has",
  certificate_unknown_ca:
    "no trusted CA has signed the server's certificate; set ca to its CA, or to the certificate itself",
  certificate_bad:
    "the server's certificate has another fault: a wrong signature, use or form; one that is marked as a CA's must be in ca itself",
  our_certificate: "the server wants a certificate of convey's, or another one; set cert and key",
  server_alert: "the server ended the handshake with an alert; often it does not know the server_name",
  protocol: "the server broke the protocol",
  closed: "the server closed the connection before the handshake was complete",
  timeout: "the server did not complete the handshake in time",
  internal: "an error in convey itself; please report it",
};

export const ALERTS = {
  nat_ports_exhausted: "no NAT port is free: new flows are dropped; widen [packet] nat_ports or add a nat_address",
  flow_table_full: "the flow table is full: new flows are dropped; raise [packet] max_flows",
  syn_share_full: "half-open flows hold their share of the flow table: new ones are dropped; raise [packet] max_flows",
  next_hop_unresolved: "the next hop is unresolved: packets are dropped; check the server or its gateway",
  no_route: "there is no route: packets are dropped; check the routes of this host",
  server_behind_gateway: "its route has a gateway, where dsr_method l2 needs it on the same link: packets are dropped",
  receive_dropped: "the kernel drops packets that Convey is too slow for; raise [packet] workers",
  handshakes_unanswered: "no SYN is answered: check its firewall, its address filter and its return route to this host",
  handshakes_unacknowledged:
    "no client acknowledges its SYN|ACK: check the return route and the firewalls to the clients",
  dsr_handshakes_incomplete:
    "no handshake completes: run the output of `convey backend-script`, then `convey-backend-setup check` there",
  client_ports_exhausted: "a client network holds its share of a server's NAT ports: see [packet] max_ports_per_client",
  frontend_rate_reached: "new connections beyond [limits] new_per_second are refused",
};

export const VERDICTS = {
  to_server: "forwarded to a server",
  to_client: "forwarded to a client",
  icmp_error_to_server: "an ICMP error about a flow, forwarded to its server",
  icmp_error_to_client: "an ICMP error about a flow, forwarded to its client",
  not_ours: "left to the kernel: no frontend and no flow has its addresses and ports",
  reset_no_flow: "answered with a reset: it belongs to no flow, which may have expired (see idle_timeout)",
  reset_no_server: "answered with a reset: no server of the backend is eligible",
  reset_server_down: "answered with a reset: the flow's server is down",
  unreachable_no_server: "answered with ICMP port unreachable: no server of the backend is eligible",
  too_big: "answered with ICMP: larger than the MTU towards its destination",
  time_exceeded: "answered with ICMP: its TTL or hop limit is used up; if it persists, look for a routing loop",
  answer_limited: "dropped without an answer: the limit of resets and ICMP answers a second is reached",
  malformed: "dropped: too short, or with headers that contradict each other",
  bad_header_checksum: "dropped: the checksum of its IPv4 header is wrong",
  unsupported_header: "dropped: an IPv6 packet with extension headers that hide the transport header",
  too_many_tags: "dropped: more than two VLAN tags",
  flow_table_full: "dropped: the flow table is full; raise [packet] max_flows",
  syn_share_full: "dropped: half-open flows hold their quarter of the flow table; raise [packet] max_flows",
  nat_ports_exhausted: "dropped: every NAT port to the server is taken; widen [packet] nat_ports or add a nat_address",
  foreign_source: "dropped: sent to a NAT port by a host that is not the flow's server",
  icmp_unmatched: "dropped: an ICMP error that belongs to no flow, or contradicts it",
  no_route: "dropped: there is no route to the server; check the routes of this host",
  next_hop_unresolved: "dropped: the next hop to the server has not answered yet (ARP, neighbour discovery)",
  fragment_table_full: "dropped: a fragment that came before the first one, and too many are waiting",
  fragment_timeout: "dropped: a fragment that waited too long for the first one of its datagram",
  bad_fragment: "dropped: a fragment that overlaps another, or is too small",
  own_source: "dropped: its source is an address of this host; it is forged, or loops",
  wrong_interface: "dropped: from a server, by an interface that does not lead to it; see [packet] any_interface",
  vip_absent: "dropped: no interface of this host has the VIP; existing flows go on",
  send_failed: "dropped: the kernel did not take it for sending; check the outgoing interface",
  receive_dropped: "dropped by the kernel: the packet threads do not keep up; raise [packet] workers",
  truncated: "dropped: longer than the receive buffer",
  denied: "dropped: the frontend's access rules deny this client",
  client_connections: "dropped: the client's network has as many connections as per_client.connections allows",
  client_rate: "dropped: the client's network has reached its rate; see [limits] per_client",
  frontend_rate: "dropped: the frontend has reached its rate; see [limits] new_per_second",
  client_datagrams: "dropped: the client's network has sent its datagrams of this second; see [limits] per_client",
  server_behind_gateway:
    "dropped: the route to a server of dsr_method l2 has a gateway; give it an address on the same link",
  client_ports: "dropped: the client holds its share of the server's NAT ports; see [packet] max_ports_per_client",
};

/** The packet modes' TCP handshakes. */
const HANDSHAKES = {
  completed: "complete",
  unanswered: "the server did not answer the SYN",
  unacknowledged: "the client did not answer the server",
  dsr_completed: "complete (dsr)",
  dsr_incomplete: "the client sent nothing after its SYN (dsr)",
};

export const DSR_HINT = "Servers of mode dsr need a rule that rewrites their answers.";

/** A label that this page does not know is shown as it is: the daemon may be newer. */
function wordsIn(set) {
  return (label) => {
    const found = set[label];
    return found ? found[0].toUpperCase() + found.slice(1) : String(label).replaceAll("_", " ");
  };
}

export const endingWords = wordsIn(ENDINGS);
export const refusalWords = wordsIn(REFUSALS);
export const datagramWords = wordsIn(DATAGRAMS);
export const tlsFailureWords = wordsIn(TLS_FAILURES);
export const alertWords = wordsIn(ALERTS);
export const verdictWords = wordsIn(VERDICTS);
export const handshakeWords = wordsIn(HANDSHAKES);
