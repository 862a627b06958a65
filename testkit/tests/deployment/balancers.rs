//! The balancers' configurations are accepted by the balancers.

use culvert_testkit::process::{Plan, free_port};

use crate::{file, installed, run, text};

#[tokio::test]
async fn haproxy_accepts_its_configuration() {
    let haproxy = Plan::new("haproxy", installed("/usr/sbin/haproxy", "haproxy"));
    let haproxy = haproxy.args(["-c", "-f"]).arg(file("deploy/haproxy.cfg"));
    let printed = run(haproxy.env("RELAY_HOST", "relay.example").env("BROKER_HOST", "broker.example")).await;
    assert!(printed.contains("Configuration file is valid"), "{printed}");
    // Containers that do not run yet are no fault; anything else that it warns of is.
    let warnings = printed.lines().filter(|line| line.contains("[WARNING]"));
    let others: Vec<&str> = warnings.filter(|line| !line.contains("could not resolve address")).collect();
    assert!(others.is_empty(), "{others:?}");
}

#[tokio::test]
async fn nginx_accepts_its_configuration() {
    let nginx = installed("/usr/sbin/nginx", "nginx");
    installed("/usr/lib/nginx/modules/ngx_stream_module.so", "libnginx-mod-stream");
    let folder = tempfile::tempdir().unwrap();
    // It tries the port, which somebody may have, and writes its pid.
    let listen = format!("listen 127.0.0.1:{};", free_port().unwrap());
    let given = text("deploy/nginx-stream.conf");
    assert!(given.contains("listen 443;"));
    let pid = folder.path().join("nginx.pid");
    let changed = format!("pid {};\n{}", pid.display(), given.replace("listen 443;", &listen));
    let path = folder.path().join("nginx.conf");
    std::fs::write(&path, changed).unwrap();
    let printed = run(Plan::new("nginx", &nginx).args(["-t", "-c"]).arg(&path)).await;
    assert!(printed.contains("test is successful") && !printed.contains("[warn]"), "{printed}");
}

#[test]
fn neither_gives_newcomers_to_the_relay_with_the_fewest() {
    for path in ["deploy/haproxy.cfg", "deploy/nginx-stream.conf"] {
        let directives: Vec<String> = text(path)
            .lines()
            .map(|line| line.trim().to_owned())
            .filter(|line| !line.starts_with('#'))
            .collect();
        assert!(
            !directives.iter().any(|line| line.contains("leastconn") || line.contains("least_conn")),
            "{path}"
        );
    }
}
