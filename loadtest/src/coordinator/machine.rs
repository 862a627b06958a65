//! What a run ran on, in a line.

use bytesize::ByteSize;

/// Processor, cores, memory, kernel; what the system does not say is left out.
pub(super) fn description() -> String {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let (processors, memory) = (read("/proc/cpuinfo"), read("/proc/meminfo"));
    let model = field(&processors, "model name");
    let cores = processors.lines().filter(|line| line.starts_with("processor")).count();
    let memory = field(&memory, "MemTotal").and_then(|size| size.strip_suffix(" kB")?.parse::<u64>().ok());
    let kernel = read("/proc/sys/kernel/osrelease");
    let parts = [
        model.map(str::to_owned),
        (cores > 0).then(|| format!("{cores} {}", if cores == 1 { "core" } else { "cores" })),
        memory.map(|kib| ByteSize::kib(kib).display().iec().to_string()),
        (!kernel.is_empty()).then(|| format!("Linux {}", kernel.trim())),
    ];
    parts.into_iter().flatten().collect::<Vec<_>>().join(", ")
}

fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let line = text.lines().find(|line| line.starts_with(name))?;
    line.split_once(':').map(|(_, value)| value.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_is_described_by_what_it_says_about_itself() {
        let text = description();
        assert!(text.contains("core") && text.contains("iB") && text.contains("Linux "), "{text}");
    }
}
