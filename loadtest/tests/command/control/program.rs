//! The program in a folder of its own, and the processes that it leaves behind.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use culvert_loadtest::report::Report;
use culvert_testkit::process::{Plan, Process, Program, Signal, Source};
use culvert_testkit::relay::{RelayPlan, RelayProcess};
use tempfile::TempDir;
use tokio::time::{Instant, interval};

/// Longer than any run here takes on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);
/// The variable by which the processes of one test are known; children inherit it.
const MARK: &str = "LOADTEST_OF_TEST";
const POLL: Duration = Duration::from_millis(50);

/// A folder in which the program runs.
pub(crate) struct Bench {
    folder: TempDir,
}

/// What is left of a program that ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Bench {
    pub(crate) fn new() -> Self {
        Self { folder: tempfile::Builder::new().prefix("culvert-bench-").tempdir().unwrap() }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes a file and gives its path.
    pub(crate) fn file(&self, name: &str, content: &str) -> String {
        std::fs::write(self.path(name), content).unwrap();
        self.path(name).display().to_string()
    }

    /// The program with these words, separated by blanks.
    pub(crate) fn plan(&self, line: &str) -> Plan {
        self.plan_of("culvert-loadtest", program()).args(line.split(' '))
    }

    /// Any program in this folder.
    pub(crate) fn plan_of(&self, name: &str, program: impl Into<Program>) -> Plan {
        Plan::new(name, program).current_dir(self.folder.path()).env(MARK, self.mark())
    }

    /// Runs the program to its end, after which none of its processes is left.
    pub(crate) async fn run(&self, line: &str) -> Ended {
        self.end(&mut self.plan(line).start().unwrap()).await
    }

    /// Waits for the end of a program, and of all that it started.
    pub(crate) async fn end(&self, process: &mut Process) -> Ended {
        let status = process.wait(PATIENCE).await.unwrap();
        self.nothing_runs().await;
        let text = |source| process.output().text(source);
        Ended { code: status.code(), out: text(Source::Stdout), err: text(Source::Stderr) }
    }

    /// Waits until no process that was started here is left: the kernel ends those whose parent is gone.
    pub(crate) async fn nothing_runs(&self) {
        let (end, mut ticks) = (Instant::now() + Duration::from_secs(10), interval(POLL));
        loop {
            ticks.tick().await;
            let left = self.processes();
            if left.is_empty() {
                return;
            }
            assert!(Instant::now() < end, "these still run: {left:?}");
        }
    }

    /// The pid of the process whose command line contains this, when it is there.
    pub(crate) async fn pid_of(&self, part: &str) -> u32 {
        let (end, mut ticks) = (Instant::now() + PATIENCE, interval(POLL));
        loop {
            ticks.tick().await;
            let processes = self.processes();
            if let Some((pid, _)) = processes.iter().find(|(_, line)| line.contains(part)) {
                return *pid;
            }
            assert!(Instant::now() < end, "no {part} among {processes:?}");
        }
    }

    /// The report that a run wrote.
    pub(crate) fn report(&self, name: &str) -> Report {
        Report::read(&self.path(name)).unwrap()
    }

    /// Names of the files here.
    pub(crate) fn files(&self) -> Vec<String> {
        let files = std::fs::read_dir(self.folder.path()).unwrap();
        files.map(|file| file.unwrap().file_name().to_string_lossy().into_owned()).collect()
    }

    fn mark(&self) -> String {
        self.folder.path().display().to_string()
    }

    /// Pids and command lines of everything that was started here and runs.
    fn processes(&self) -> BTreeMap<u32, String> {
        let mark = format!("{MARK}={}", self.mark());
        let marked = |pid: &u32| {
            let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
            environment.split(|byte| *byte == 0).any(|variable| variable == mark.as_bytes())
        };
        let command = |pid| {
            let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            (pid, String::from_utf8_lossy(&line).replace('\0', " "))
        };
        let entries = std::fs::read_dir("/proc").unwrap();
        let pids = entries.filter_map(|entry| entry.unwrap().file_name().to_string_lossy().parse().ok());
        pids.filter(marked).map(command).collect()
    }
}

impl Ended {
    /// It ended with this code and said this on standard error.
    #[track_caller]
    pub(crate) fn said(&self, code: i32, sentence: &str) {
        assert!(
            self.code == Some(code) && self.err.contains(sentence),
            "not {code} and {sentence:?}: {self:#?}"
        );
    }

    #[track_caller]
    pub(crate) fn succeeded(&self) {
        assert_eq!(self.code, Some(0), "{self:#?}");
    }
}

/// The program under test.
pub(crate) fn program() -> Program {
    Program::from(Path::new(env!("CARGO_BIN_EXE_culvert-loadtest")))
}

/// A relay that no run has started, of the program itself.
pub(crate) async fn relay(change: impl FnOnce(RelayPlan) -> RelayPlan) -> RelayProcess {
    let plan = RelayPlan::closed(program().arg("relay")).unwrap();
    change(plan).start().await.unwrap()
}

/// Sends a signal to a process of a test.
pub(crate) fn signal(pid: u32, signal: Signal) {
    let pid = rustix::process::Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    rustix::process::kill_process(pid, signal).unwrap();
}
