// The load balancer that most tests look at: every mode, TLS with two names, a server that is down, names that are markup.

import { Daemon, traffic } from "./lab.mjs";

export const EVIL = "<img src=x onerror=alert(1)>";

export const CONFIG = `# The page's test
[global]
workers = 2
watch_config = false

[admin]
socket = "{dir}/admin.sock"
listen_addr = "127.0.0.1:9000"
loopback_role = "configure"
allow_config_writes = true

[defaults]
access_log = false
health_check = { interval = "500ms", timeout = "500ms", fall = 2 }

[frontends.web]
listen_addr = "10.88.0.2:80"
backend = "web"

[frontends.shop]
listen_addr = "10.88.0.2:443"
backend = "shop"
tls = { certificates = [{ cert = "{dir}/../shop.pem", key = "{dir}/../shop.key" }] }
routes = [{ sni = "api.example.com", backend = "api" }]

[frontends.database]
listen_addr = "10.88.0.2:3306"
backend = "database"

[frontends.resolver]
listen_addr = "10.88.0.2:53"
protocol = "udp"
backend = "resolver"

[frontends.nat]
listen_addr = "10.88.0.100:80"
mode = "passthrough"
backend = "packets"

[frontends.direct]
listen_addr = "10.88.0.101:80"
mode = "dsr"
backend = "packets"

[backends.web]
servers.a = { addr = "10.88.0.11:80", weight = 3 }
servers.b = { addr = "10.88.0.12:80" }

[backends.shop]
balance = "least_connections"
servers.a = { addr = "10.88.0.11:8080" }
servers.b = { addr = "10.88.0.12:8080" }

[backends.api]
servers."${EVIL}" = { addr = "10.88.0.12:8080" }
servers.green = { addr = "10.88.0.11:9999" }

[backends.database]
discovery = { kind = "api" }
servers.primary = { addr = "10.88.0.12:80" }

[backends.resolver]
servers.a = { addr = "10.88.0.11:53" }

[backends.packets]
dsr_method = "nft"
servers.a = { addr = "10.88.0.11:80" }
servers.b = { addr = "10.88.0.12:80" }
`;

const FLOWS = [
  { host: "10.88.0.2", port: 80, rate: 20, size: 20_000, wait: 30 },
  { host: "10.88.0.2", port: 443, rate: 4, size: 20_000, tls: ["shop.example.com", "api.example.com"] },
  { host: "10.88.0.2", port: 3306, hold: 6 },
  { host: "10.88.0.2", port: 53, rate: 20, udp: true },
  { host: "10.88.0.100", port: 80, rate: 5 },
];

/** The site with its traffic; `stop()` ends both. */
export async function site(name) {
  const daemon = await new Daemon(name, CONFIG).start();
  const quiet = traffic(FLOWS);
  return {
    daemon,
    stop: async () => {
      quiet();
      await daemon.stop();
    },
  };
}

/** The `before` and `after` of a file of tests, and its site. */
export function withSite(name) {
  const held = {};
  return {
    held,
    before: async () => Object.assign(held, await site(name)),
    after: async () => held.stop?.(),
  };
}
