//! What a traced server did to the files of its data folder, and what it answered meanwhile.

use std::collections::{BTreeMap, HashMap};

use serde_json::Value;

use super::strace::{Call, CallReader, Span, descriptor, split, strings};

/// The files of a data folder from its creation on, through one or several processes.
pub(super) struct Trace {
    folder: String,
    files: Vec<FileHistory>,
    changes_of_names: Vec<NameChange>,
    folder_syncs: Vec<Span>,
    answers: Vec<LoggedAnswer>,
    /// The present names of files.
    names: BTreeMap<String, usize>,
    /// The open files of the present process, by descriptor.
    open: HashMap<String, OpenFile>,
    lines: usize,
}

/// All changes of the content of a file, in their order.
#[derive(Default)]
pub(super) struct FileHistory {
    pub(super) changes: Vec<FileChange>,
    syncs: Vec<Span>,
}

#[derive(Clone)]
pub(super) struct FileChange {
    span: Span,
    pub(super) content: ContentChange,
}

#[derive(Clone)]
pub(super) enum ContentChange {
    Write { offset: usize, data: Vec<u8> },
    Resize(usize),
}

struct NameChange {
    span: Span,
    kind: NameChangeKind,
}

enum NameChangeKind {
    Created(String, usize),
    Removed(String),
    Renamed(String, String),
}

/// An answer to a write whose request id is `LOCK.KEY`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct LoggedAnswer {
    /// The line at which the server began to send it.
    pub(super) at: usize,
    pub(super) lock: u64,
    pub(super) key: String,
    pub(super) status: u16,
    /// The version of the event of a 200.
    pub(super) version: Option<u64>,
}

/// The file position of an open file.
struct OpenFile {
    position: usize,
    appends: bool,
}

/// Whether a change was made at a point of the trace, and whether a power cut then cannot undo it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Durability {
    NotYet,
    Unsynced,
    Synced,
}

/// Index files of SQLite's write-ahead logs. They are mapped into memory and built anew after a crash.
const INDEX_SUFFIX: &str = "-shm";

impl Trace {
    /// `folder` does not exist before the first process starts.
    pub(super) fn new(folder: &str) -> Self {
        Self {
            folder: folder.to_owned(),
            files: Vec::new(),
            changes_of_names: Vec::new(),
            folder_syncs: Vec::new(),
            answers: Vec::new(),
            names: BTreeMap::new(),
            open: HashMap::new(),
            lines: 0,
        }
    }

    /// Adds the trace of the next process.
    ///
    /// # Errors
    /// The process did something to a file that this model does not have.
    pub(super) fn add(&mut self, text: &str) -> Result<(), String> {
        self.open.clear();
        let mut reader = CallReader::default();
        for line in text.lines() {
            self.lines += 1;
            let Some(call) = reader.read(line, self.lines)? else {
                continue;
            };
            self.apply(&call)
                .map_err(|why| format!("line {}: {}: {why}", self.lines, call.name))?;
        }
        Ok(())
    }

    pub(super) fn answers(&self) -> &[LoggedAnswer] {
        &self.answers
    }

    pub(super) fn files(&self) -> &[FileHistory] {
        &self.files
    }

    /// The lines at which a power cut makes a difference, in ascending order.
    pub(super) fn points(&self) -> Vec<usize> {
        let changes = self.files.iter().flat_map(|file| &file.changes);
        let syncs = self.files.iter().flat_map(|file| &file.syncs);
        let names = self.changes_of_names.iter().map(|change| change.span);
        let spans = changes.map(|change| change.span);
        let spans = spans.chain(syncs.chain(&self.folder_syncs).copied());
        let mut points: Vec<usize> = spans
            .chain(names)
            .flat_map(|span| [span.start, span.end])
            .chain(self.answers.iter().map(|answer| answer.at))
            .collect();
        points.sort_unstable();
        points.dedup();
        points
    }

    /// How many of the changes of names are durable at `cut`, and how many were made.
    pub(super) fn name_changes(&self, cut: usize) -> (usize, usize) {
        let made = self.changes_of_names.iter();
        let made = made.take_while(|change| change.span.start <= cut).count();
        let is_durable = |change: &NameChange| {
            let own = match &change.kind {
                NameChangeKind::Created(_, file) => &*self.files[*file].syncs,
                NameChangeKind::Removed(_) | NameChangeKind::Renamed(..) => &[],
            };
            durability(change.span, own, cut) == Durability::Synced
                || durability(change.span, &self.folder_syncs, cut) == Durability::Synced
        };
        // They become durable in their order, as in the journal of a file system.
        let durable = self.changes_of_names[..made].iter().rposition(is_durable);
        (durable.map_or(0, |last| last + 1), made)
    }

    /// The names of files after the first `count` changes of names.
    pub(super) fn names_after(&self, count: usize) -> BTreeMap<String, usize> {
        let mut names = BTreeMap::new();
        for change in &self.changes_of_names[..count] {
            match &change.kind {
                NameChangeKind::Created(name, file) => {
                    names.insert(name.clone(), *file);
                }
                NameChangeKind::Removed(name) => {
                    names.remove(name);
                }
                NameChangeKind::Renamed(from, to) => {
                    if let Some(file) = names.remove(from) {
                        names.insert(to.clone(), file);
                    }
                }
            }
        }
        names
    }

    /// The names and contents of all files as the processes have left them.
    pub(super) fn final_files(&self) -> BTreeMap<String, Vec<u8>> {
        let content = |file: usize| {
            let mut content = Vec::new();
            for change in &self.files[file].changes {
                change.content.apply(&mut content);
            }
            content
        };
        let names = self.names.iter();
        names
            .map(|(name, file)| (name.clone(), content(*file)))
            .collect()
    }

    fn apply(&mut self, call: &Call) -> Result<(), String> {
        let arguments = split(&call.arguments);
        let argument = |at: usize| arguments.get(at).copied().unwrap_or_default();
        let number = |at: usize| {
            let number = argument(at).parse::<usize>();
            number.map_err(|_| format!("{} is not a number", argument(at)))
        };
        let path = descriptor(argument(0)).map(|(_, path)| path);
        if let Some(path) = &path
            && path.starts_with("socket:")
        {
            self.answers.extend(answer(call, &arguments)?);
            return Ok(());
        }
        let Some(result) = call.result.filter(|result| *result >= 0) else {
            return Ok(());
        };
        let span = call.span;
        match &*call.name {
            "openat" => {
                let name = strings(argument(1));
                if let Some(name) = self.name_of(&String::from_utf8_lossy(&name))? {
                    self.open(name, argument(2), result, span)?;
                }
            }
            "lseek" => {
                let (fd, _) = descriptor(argument(0)).unwrap_or_default();
                if let Some(open) = self.open.get_mut(fd) {
                    open.position = usize::try_from(result).map_err(|e| e.to_string())?;
                }
            }
            "pwrite64" => {
                if let Some(file) = self.file_of(path.as_deref())? {
                    let (offset, written) = (number(3)?, strings(argument(1)));
                    self.write(file, offset, written, result, span)?;
                }
            }
            "write" | "writev" => {
                if let Some(file) = self.file_of(path.as_deref())? {
                    let (fd, _) = descriptor(argument(0)).unwrap_or_default();
                    let size = self.final_size(file);
                    let open = self.open.get_mut(fd).ok_or("the file was not opened")?;
                    let offset = if open.appends { size } else { open.position };
                    open.position = offset + usize::try_from(result).map_err(|e| e.to_string())?;
                    self.write(file, offset, strings(argument(1)), result, span)?;
                }
            }
            "ftruncate" => {
                if let Some(file) = self.file_of(path.as_deref())? {
                    let content = ContentChange::Resize(number(1)?);
                    self.files[file].changes.push(FileChange { span, content });
                }
            }
            "fsync" | "fdatasync" => {
                if path.as_deref() == Some(&*self.folder) {
                    self.folder_syncs.push(span);
                } else if let Some(file) = self.file_of(path.as_deref())? {
                    self.files[file].syncs.push(span);
                }
            }
            "unlink" => self.remove(&strings(argument(0)), span)?,
            "unlinkat" => self.remove(&strings(argument(1)), span)?,
            "rename" => self.rename(&strings(argument(0)), &strings(argument(1)), span)?,
            "renameat" | "renameat2" => {
                self.rename(&strings(argument(1)), &strings(argument(3)), span)?;
            }
            "mkdir" if strings(argument(0)) == self.folder.as_bytes() => {}
            "mmap" => {
                let mapped = descriptor(argument(4)).map(|(_, path)| path);
                if argument(2).contains("PROT_WRITE")
                    && argument(3).contains("MAP_SHARED")
                    && self.file_of(mapped.as_deref())?.is_some()
                {
                    return Err("the model has no files that are written in memory".into());
                }
            }
            _ => {
                let mentions_folder = |argument: &&str| {
                    let path = descriptor(argument).map(|(_, path)| path);
                    let text = String::from_utf8_lossy(&strings(argument)).into_owned();
                    let in_folder = |path: String| {
                        path.starts_with(&self.folder) && !path.ends_with(INDEX_SUFFIX)
                    };
                    path.is_some_and(in_folder) || in_folder(text)
                };
                if arguments.iter().any(mentions_folder) {
                    return Err("the model does not have this call".into());
                }
            }
        }
        Ok(())
    }

    /// The name of a file in the folder, without the index files.
    fn name_of(&self, path: &str) -> Result<Option<String>, String> {
        let inside = path.strip_prefix(&self.folder);
        let Some(name) = inside.and_then(|name| name.strip_prefix('/')) else {
            return Ok(None);
        };
        match name.contains('/') {
            true => Err(format!(
                "the model has no folders inside of the folder: {path}"
            )),
            false => Ok((!name.ends_with(INDEX_SUFFIX)).then(|| name.to_owned())),
        }
    }

    fn file_of(&self, path: Option<&str>) -> Result<Option<usize>, String> {
        let Some(name) = path.map(|path| self.name_of(path)).transpose()?.flatten() else {
            return Ok(None);
        };
        match self.names.get(&name) {
            Some(file) => Ok(Some(*file)),
            None if name.ends_with("(deleted)") => Ok(None),
            None => Err(format!("{name} was not created")),
        }
    }

    fn open(&mut self, name: String, flags: &str, fd: i64, span: Span) -> Result<(), String> {
        let has = |flag: &str| flags.split('|').any(|set| set == flag);
        if has("O_TMPFILE") {
            return Err("the model has no files without a name".into());
        }
        match self.names.get(&name) {
            Some(file) if has("O_TRUNC") => {
                let content = ContentChange::Resize(0);
                self.files[*file].changes.push(FileChange { span, content });
            }
            Some(_) => {}
            None if has("O_CREAT") => {
                let file = self.files.len();
                self.files.push(FileHistory::default());
                self.names.insert(name.clone(), file);
                let kind = NameChangeKind::Created(name, file);
                self.changes_of_names.push(NameChange { span, kind });
            }
            None => return Err(format!("{name} was not created")),
        }
        let appends = has("O_APPEND");
        let open = OpenFile {
            position: 0,
            appends,
        };
        self.open.insert(fd.to_string(), open);
        Ok(())
    }

    fn write(
        &mut self,
        file: usize,
        offset: usize,
        mut data: Vec<u8>,
        written: i64,
        span: Span,
    ) -> Result<(), String> {
        let written = usize::try_from(written).map_err(|e| e.to_string())?;
        if written > data.len() {
            return Err("the trace does not have all bytes".into());
        }
        data.truncate(written);
        let content = ContentChange::Write { offset, data };
        self.files[file].changes.push(FileChange { span, content });
        Ok(())
    }

    fn final_size(&self, file: usize) -> usize {
        let changes = self.files[file].changes.iter();
        changes.fold(0, |size, change| match &change.content {
            ContentChange::Write { offset, data } => size.max(offset + data.len()),
            ContentChange::Resize(size) => *size,
        })
    }

    fn remove(&mut self, path: &[u8], span: Span) -> Result<(), String> {
        if let Some(name) = self.name_of(&String::from_utf8_lossy(path))? {
            self.names.remove(&name);
            let kind = NameChangeKind::Removed(name);
            self.changes_of_names.push(NameChange { span, kind });
        }
        Ok(())
    }

    fn rename(&mut self, from: &[u8], to: &[u8], span: Span) -> Result<(), String> {
        let from = self.name_of(&String::from_utf8_lossy(from))?;
        let to = self.name_of(&String::from_utf8_lossy(to))?;
        match (from, to) {
            (None, None) => Ok(()),
            (Some(from), Some(to)) => {
                let file = self.names.remove(&from);
                let file = file.ok_or_else(|| format!("{from} was not created"))?;
                self.names.insert(to.clone(), file);
                let kind = NameChangeKind::Renamed(from, to);
                self.changes_of_names.push(NameChange { span, kind });
                Ok(())
            }
            _ => Err("the model has no files that come from outside of the folder".into()),
        }
    }
}

impl FileHistory {
    pub(super) fn durability(&self, change: &FileChange, cut: usize) -> Durability {
        durability(change.span, &self.syncs, cut)
    }
}

impl ContentChange {
    pub(super) fn apply(&self, content: &mut Vec<u8>) {
        match self {
            Self::Write { offset, data } => write(content, *offset, data),
            Self::Resize(size) => content.resize(*size, 0),
        }
    }
}

/// Writes to a file; bytes between its end and the offset become zero.
pub(super) fn write(content: &mut Vec<u8>, offset: usize, data: &[u8]) {
    let end = offset + data.len();
    if content.len() < end {
        content.resize(end, 0);
    }
    content[offset..end].copy_from_slice(data);
}

/// A sync covers what had returned before it was called, once it has returned itself.
fn durability(change: Span, syncs: &[Span], cut: usize) -> Durability {
    if change.start > cut {
        return Durability::NotYet;
    }
    // Syncs are in the order of their ends.
    let later = syncs.partition_point(|sync| sync.end <= change.end);
    let made = syncs[later..].iter().take_while(|sync| sync.end <= cut);
    match made.into_iter().any(|sync| sync.start > change.end) {
        true => Durability::Synced,
        false => Durability::Unsynced,
    }
}

/// The answer in a write to a socket, if it is one to a write of the load.
fn answer(call: &Call, arguments: &[&str]) -> Result<Option<LoggedAnswer>, String> {
    let sent = strings(arguments.get(1).copied().unwrap_or_default());
    let sent = String::from_utf8_lossy(&sent);
    let Some(answer) = sent.strip_prefix("HTTP/1.1 ") else {
        return Ok(None);
    };
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((answer, ""));
    let id = head
        .lines()
        .find_map(|line| line.strip_prefix("x-request-id: "));
    let Some((lock, key)) = id.and_then(|id| id.split_once('.')) else {
        return Ok(None);
    };
    let status = head.get(..3).and_then(|status| status.parse().ok());
    let body: Option<Value> = serde_json::from_str(body).ok();
    let version = body.and_then(|body| body["version"].as_u64());
    let status = status.ok_or("an answer without a status")?;
    if status == 200 && version.is_none() {
        return Err("a 200 without a version in the same call".into());
    }
    Ok(Some(LoggedAnswer {
        at: call.span.start,
        lock: lock.parse().map_err(|_| "a request id without a lock")?,
        key: key.to_owned(),
        status,
        version: version.filter(|_| status == 200),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trace(lines: &[&str]) -> Result<Trace, String> {
        let mut trace = Trace::new("/d");
        trace.add(&lines.join("\n")).map(|()| trace)
    }

    const CREATE: &str =
        r#"1 openat(AT_FDCWD</>, "/d/a", O_RDWR|O_CREAT|O_CLOEXEC, 0600) = 3</d/a>"#;

    #[test]
    fn a_sync_covers_what_had_returned_before_it_was_called() {
        let trace = trace(&[
            CREATE,
            r#"1 pwrite64(3</d/a>, "x", 1, 0) = 1"#,
            r"2 fsync(3</d/a> <unfinished ...>",
            r#"1 pwrite64(3</d/a>, "y", 1, 1) = 1"#,
            r"2 <... fsync resumed>) = 0",
        ])
        .expect("a trace");
        let file = &trace.files()[0];
        let durability = |change: usize, cut| file.durability(&file.changes[change], cut);
        assert_eq!(durability(0, 1), Durability::NotYet);
        assert_eq!(durability(0, 4), Durability::Unsynced);
        assert_eq!(durability(0, 5), Durability::Synced);
        assert_eq!(durability(1, 5), Durability::Unsynced);
        assert_eq!(trace.final_files()["a"], b"xy");
    }

    #[test]
    fn names_become_durable_in_their_order() {
        let trace = trace(&[
            CREATE,
            r#"1 openat(AT_FDCWD</>, "/d/b", O_RDWR|O_CREAT, 0600) = 4</d/b>"#,
            r"1 fsync(4</d/b>) = 0",
            r#"1 renameat(AT_FDCWD</>, "/d/b", AT_FDCWD</>, "/d/c") = 0"#,
            r#"1 unlink("/d/a") = 0"#,
            r"1 fsync(5</d>) = 0",
        ])
        .expect("a trace");
        assert_eq!(trace.name_changes(2), (0, 2));
        assert_eq!(trace.name_changes(5), (2, 4));
        assert_eq!(trace.name_changes(6), (4, 4));
        let names: Vec<_> = trace.names_after(3).into_keys().collect();
        assert_eq!(names, ["a", "c"]);
    }

    #[test]
    fn writes_without_an_offset_continue_or_append() {
        let trace = trace(&[
            CREATE,
            r#"1 write(3</d/a>, "one", 3) = 3"#,
            r#"1 write(3</d/a>, "two", 3) = 2"#,
            r#"1 openat(AT_FDCWD</>, "/d/a", O_WRONLY|O_APPEND) = 4</d/a>"#,
            r#"1 write(4</d/a>, ".", 1) = 1"#,
            r"1 ftruncate(3</d/a>, 5) = 0",
        ])
        .expect("a trace");
        assert_eq!(trace.final_files()["a"], b"onetw");
    }

    #[test]
    fn answers_are_read_from_what_is_sent() {
        let sent = "HTTP/1.1 200 OK\r\nx-request-id: 7.k-1\r\n\r\n{\\\"version\\\":3}";
        let hex: String = sent
            .replace('\\', "")
            .bytes()
            .map(|byte| format!("\\x{byte:02x}"))
            .collect();
        let line = format!(r#"1 sendto(9<socket:[4]>, "{hex}", 99, MSG_NOSIGNAL, NULL, 0) = 99"#);
        let trace = trace(&[CREATE, &line]).expect("a trace");
        let expected = LoggedAnswer {
            at: 2,
            lock: 7,
            key: "k-1".into(),
            status: 200,
            version: Some(3),
        };
        assert_eq!(trace.answers(), [expected]);
    }

    #[test]
    fn calls_that_the_model_does_not_have_are_errors() {
        for line in [
            r"1 fallocate(3</d/a>, 0, 0, 9) = 0",
            r#"1 link("/d/a", "/d/b") = 0"#,
            r"1 mmap(NULL, 9, PROT_READ|PROT_WRITE, MAP_SHARED, 3</d/a>, 0) = 0x7f",
            r#"1 openat(AT_FDCWD</>, "/d/x/a", O_RDWR|O_CREAT, 0600) = 3</d/x/a>"#,
            r#"1 pwrite64(5</d/b>, "x", 1, 0) = 1"#,
        ] {
            assert!(trace(&[CREATE, line]).is_err(), "{line}");
        }
    }
}
