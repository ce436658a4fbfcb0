//! Ten thousand requests that a generator makes of the API's own document, on demand: it comes from PyPI.

use std::{path::PathBuf, time::Duration};

use crate::{
    Test,
    lab::Lab,
    site::{NO_CHECK, frontend},
    tests,
};

/// Tests of this module.
pub const TESTS: &[Test] = tests![ten_thousand_requests_by_schemathesis_find_no_fault];

/// Checks that do not fit: an address or a name that is none is refused, though its schema says no more than "text"; a text
/// that is no configuration is the answer of `check`, not its refusal; a missing If-Match is 428 (RFC 6585).
const NOT_ASKED: &str = "positive_data_acceptance,negative_data_rejection,missing_required_header";

/// Memory that requests may leave behind, in bytes.
const LEFT: u64 = 32 << 20;

fn ten_thousand_requests_by_schemathesis_find_no_fault() {
    let lab = Lab::new("api-fuzz");
    let lb = lab.host("lb");
    let socket = lb.path("convey/admin.sock");
    let config = format!(
        "[admin]\nsocket = {socket:?}\nlisten_addr = \"127.0.0.1:7001\"\nloopback_role = \"configure\"\nallow_config_writes = true\n\
         {}[backends.web]\n{NO_CHECK}\ndiscovery.kind = \"api\"\nservers.a = {{ addr = \"10.77.0.99:80\" }}\n",
        frontend("web", lb.addr(80), "web", "")
    );
    let convey = lab.convey(&lb, &config);
    let hooks = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/suites/proxy/schemathesis_hooks.py");
    let before = convey.private_memory();
    let mut tool = lb.start(&format!(
        "exec env SCHEMATHESIS_HOOKS={} schemathesis run --checks all --exclude-checks {NOT_ASKED} --max-examples 450 \
         --url http://127.0.0.1:7001 http://127.0.0.1:7001/v1/openapi.json",
        hooks.display()
    ));
    let status = tool.wait(Duration::from_secs(1_200));
    let said = tool.stdout();
    let cases = said.lines().find(|line| line.contains(" generated, "));
    assert!(status.success(), "{said}");
    let cases = cases.and_then(|line| line.trim().split(' ').next()?.parse::<u32>().ok());
    assert!(cases.is_some_and(|cases| cases >= 10_000), "{said}");
    assert!(convey.private_memory() < before + LEFT);
    assert_eq!(convey.status().pid, convey.pid().as_raw().cast_unsigned());
}
