//! Parses /proc/PID/status: proc_pid_status(5), Linux `fs/proc/array.c`, `fs/proc/task_mmu.c task_mem()`.

/// What is used of a process's status. A field that the kernel does not print is `None`.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Status {
    /// The command name: at most 15 bytes, escaped by the kernel.
    pub name: String,
    /// Page tables of all levels (`VmPTE`, and `VmPMD` of Linux 4.0 to 4.14), in bytes. `None` for what has no memory of
    /// its own: a zombie or a kernel thread.
    pub page_table_bytes: Option<u64>,
    /// The number of the process in its own PID namespace (the last of `NSpid`, Linux 4.1).
    pub own_pid: Option<u32>,
    /// Anonymous pages (`RssAnon`), in bytes. Approximate: the kernel adds its per-CPU or per-thread parts up lazily.
    pub rss_anon_bytes: Option<u64>,
    /// Pages of files (`RssFile`), in bytes. Approximate.
    pub rss_file_bytes: Option<u64>,
    /// Pages of shared memory and tmpfs (`RssShmem`), in bytes. Approximate.
    pub rss_shmem_bytes: Option<u64>,
}

/// Parses the whole text. Lines that are not understood are passed over: a status is shown, never computed with blindly.
pub fn parse(text: &[u8]) -> Status {
    let mut status = Status::default();
    for line in text.split(|&byte| byte == b'\n') {
        let Some(colon) = line.iter().position(|&byte| byte == b':') else {
            continue;
        };
        let (key, value) = line.split_at(colon);
        let value = value.get(1..).unwrap_or_default();
        match key {
            b"Name" => status.name = String::from_utf8_lossy(value.trim_ascii()).into_owned(),
            b"VmPTE" | b"VmPMD" => {
                if let Some(bytes) = kib(value) {
                    let sum = status.page_table_bytes.unwrap_or(0).saturating_add(bytes);
                    status.page_table_bytes = Some(sum);
                }
            }
            b"NSpid" => {
                let numbers = std::str::from_utf8(value).unwrap_or_default();
                let last = numbers.split_whitespace().next_back();
                status.own_pid = last.and_then(|number| number.parse().ok());
            }
            b"RssAnon" => status.rss_anon_bytes = kib(value),
            b"RssFile" => status.rss_file_bytes = kib(value),
            b"RssShmem" => status.rss_shmem_bytes = kib(value),
            _ => {}
        }
    }
    status
}

/// `Pss_Anon` of /proc/PID/smaps_rollup (Linux 5.3): anonymous memory in bytes, each page divided by the number of
/// processes that have it.
///
/// ```
/// let text = b"00400000-7ffc7a275000 ---p 00000000 00:00 0  [rollup]\nPss:    64 kB\nPss_Anon:      12 kB\n";
/// assert_eq!(xip_run::report::status::anonymous_share_bytes(text), Some(12 << 10));
/// ```
pub fn anonymous_share_bytes(text: &[u8]) -> Option<u64> {
    let mut lines = text.split(|&byte| byte == b'\n');
    lines.find_map(|line| kib(line.strip_prefix(b"Pss_Anon:")?))
}

/// The bytes of a value like `  1020 kB`; `None` if it is not of that form.
pub(super) fn kib(value: &[u8]) -> Option<u64> {
    let number = value.trim_ascii().strip_suffix(b" kB")?;
    let number: u64 = std::str::from_utf8(number).ok()?.parse().ok()?;
    number.checked_mul(1024)
}
