//! Builds what a power cut can leave of a data folder.

use std::collections::BTreeMap;
use std::path::Path;

use fastrand::Rng;

use super::trace::{ContentChange, Durability, FileHistory, Trace, write};

/// The sizes of blocks that a device writes as a whole: a sector, and a page of the kernel.
const BLOCKS: [usize; 2] = [512, 4096];

/// The files of a data folder after a power cut.
pub(super) struct Image {
    /// The line of the trace after which the power was cut.
    pub(super) cut: usize,
    pub(super) files: BTreeMap<String, Vec<u8>>,
    pub(super) counts: Counts,
}

/// What became of the changes that were not synced.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Changes of contents that the image has.
    pub kept: usize,
    /// Changes of contents that it does not have.
    pub dropped: usize,
    /// Writes of which it has some blocks.
    pub torn: usize,
    /// Changes of names that it does not have.
    pub lost_names: usize,
}

impl Counts {
    pub(super) fn add(&mut self, other: Self) {
        self.kept += other.kept;
        self.dropped += other.dropped;
        self.torn += other.torn;
        self.lost_names += other.lost_names;
    }
}

/// Builds images of one trace. An image is determined by the trace, the seed and its number.
pub(super) struct ImageBuilder<'a> {
    trace: &'a Trace,
    seed: u64,
    points: Vec<usize>,
    /// The end of each file's longest beginning of synced changes so far, and its content.
    synced: Vec<(usize, Vec<u8>)>,
}

/// How likely it is that an unsynced change is in an image.
struct Chances {
    kept: f64,
    torn: f64,
    /// All of the first changes are kept, until one is not.
    in_order: bool,
}

impl<'a> ImageBuilder<'a> {
    pub(super) fn new(trace: &'a Trace, seed: u64) -> Self {
        Self {
            trace,
            seed,
            points: trace.points(),
            synced: vec![(0, Vec::new()); trace.files().len()],
        }
    }

    /// The line after which the power is cut in the image with this number: any one, or one at which an answer has just been sent.
    pub(super) fn cut(&self, number: u64) -> usize {
        let mut rng = self.rng(number);
        let answers = self.trace.answers();
        match rng.bool() && !answers.is_empty() {
            true => answers[rng.usize(0..answers.len())].at,
            false => self.points[rng.usize(0..self.points.len())],
        }
    }

    /// Builds an image. The cuts of successive calls must not descend.
    pub(super) fn build(&mut self, number: u64) -> Image {
        let cut = self.cut(number);
        let mut rng = self.rng(number);
        // Not the choices of `cut`.
        let mut rng = rng.fork();
        let chances = Chances {
            kept: [0.0, 0.25, 0.5, 0.75, 1.0][rng.usize(0..5)],
            torn: [0.0, 0.25, 1.0][rng.usize(0..3)],
            in_order: rng.u8(0..4) == 0,
        };
        let mut counts = Counts::default();
        let (durable, made) = self.trace.name_changes(cut);
        let count = match rng.bool() {
            true => made,
            false => rng.usize(durable..=made),
        };
        counts.lost_names = made - count;
        let names = self.trace.names_after(count);
        let mut contents = BTreeMap::new();
        let files = self.trace.files().iter().zip(&mut self.synced).enumerate();
        for (number, (file, synced)) in files {
            advance(file, synced, cut);
            if names.values().any(|named| *named == number) {
                let content = content(file, synced, cut, &chances, &mut rng, &mut counts);
                contents.insert(number, content);
            }
        }
        let files = names.into_iter();
        let files = files.filter_map(|(name, file)| Some((name, contents.remove(&file)?)));
        Image {
            cut,
            files: files.collect(),
            counts,
        }
    }

    fn rng(&self, number: u64) -> Rng {
        // Successive numbers must not lead to similar choices.
        let mut rng = Rng::with_seed(self.seed);
        Rng::with_seed(rng.u64(..) ^ number.wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }
}

impl Image {
    pub(super) fn write_to(&self, folder: &Path) -> std::io::Result<()> {
        let mut files = self.files.iter();
        files.try_for_each(|(name, content)| std::fs::write(folder.join(name), content))
    }
}

/// Adds to the content of the synced beginning what is durable at `cut`.
fn advance(file: &FileHistory, (end, content): &mut (usize, Vec<u8>), cut: usize) {
    while let Some(change) = file.changes.get(*end)
        && file.durability(change, cut) == Durability::Synced
    {
        change.content.apply(content);
        *end += 1;
    }
}

fn content(
    file: &FileHistory,
    (end, synced): &(usize, Vec<u8>),
    cut: usize,
    chances: &Chances,
    rng: &mut Rng,
    counts: &mut Counts,
) -> Vec<u8> {
    let mut content = synced.clone();
    let mut is_broken = false;
    for change in &file.changes[*end..] {
        match file.durability(change, cut) {
            Durability::NotYet => continue,
            Durability::Synced => {
                change.content.apply(&mut content);
                continue;
            }
            Durability::Unsynced => {}
        }
        let is_kept = rng.f64() < chances.kept && !is_broken;
        let is_torn = rng.f64() < chances.torn && !is_broken;
        // A torn write also ends an image that is in order.
        is_broken |= chances.in_order && (!is_kept || is_torn);
        match &change.content {
            ContentChange::Write { offset, data } if is_torn => {
                counts.torn += 1;
                tear(&mut content, *offset, data, rng);
            }
            change if is_kept => {
                counts.kept += 1;
                change.apply(&mut content);
            }
            _ => counts.dropped += 1,
        }
    }
    content
}

/// Writes some blocks.
fn tear(content: &mut Vec<u8>, offset: usize, data: &[u8], rng: &mut Rng) {
    let block = BLOCKS[rng.usize(0..BLOCKS.len())];
    let mut start = 0;
    while start < data.len() {
        let end = (block - (offset + start) % block + start).min(data.len());
        if rng.bool() {
            write(content, offset + start, &data[start..end]);
        }
        start = end;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn trace(lines: &[String]) -> Trace {
        let mut trace = Trace::new("/d");
        trace.add(&lines.join("\n")).expect("a trace");
        trace
    }

    fn pwrite(byte: char, len: usize, offset: usize) -> String {
        let data = byte.to_string().repeat(len);
        format!(r#"1 pwrite64(3</d/a>, "{data}", {len}, {offset}) = {len}"#)
    }

    /// The contents of file `a` in many images in which all lines have happened.
    fn contents(trace: &Trace) -> BTreeSet<Vec<u8>> {
        let last = trace.points().last().copied().expect("a point");
        let numbers = |builder: &ImageBuilder<'_>| -> Vec<u64> {
            let is_last = |number: &u64| builder.cut(*number) == last;
            (0..4000).filter(is_last).collect()
        };
        let mut builder = ImageBuilder::new(trace, 1);
        let numbers = numbers(&builder);
        let build = |number| builder.build(number).files.remove("a");
        numbers.into_iter().filter_map(build).collect()
    }

    const CREATE: &str = r#"1 openat(AT_FDCWD</>, "/d/a", O_RDWR|O_CREAT, 0600) = 3</d/a>"#;
    const SYNC: &str = "1 fsync(3</d/a>) = 0";

    #[test]
    fn synced_writes_are_in_every_image_and_others_in_every_subset() {
        let trace = trace(&[
            CREATE.into(),
            pwrite('a', 1, 0),
            SYNC.into(),
            pwrite('b', 1, 0),
            pwrite('c', 1, 1),
            pwrite('d', 1, 2),
        ]);
        let expected = ["a", "b", "ac", "bc", "a\0d", "b\0d", "acd", "bcd"];
        let expected = expected.map(|content| content.as_bytes().to_vec());
        assert_eq!(contents(&trace), BTreeSet::from(expected));
    }

    #[test]
    fn writes_are_torn_at_sectors_and_pages_of_the_file() {
        let trace = trace(&[
            CREATE.into(),
            pwrite('-', 8192, 0),
            SYNC.into(),
            pwrite('b', 4096, 2048),
        ]);
        let all = contents(&trace);
        // In the two pages that the write has a part of.
        let half_of = |content: &Vec<u8>| {
            content[2048..4096].iter().all(|byte| *byte == b'b')
                && content[4096..6144].iter().all(|byte| *byte == b'-')
        };
        assert!(all.iter().any(half_of));
        let sector = |content: &Vec<u8>| content[2048..2560] != content[2560..3072];
        assert!(all.iter().any(sector));
        for content in &all {
            assert_eq!(content.len(), 8192);
            let whole = content
                .chunks(512)
                .all(|sector| sector.iter().all(|byte| byte == &sector[0]));
            assert!(whole, "no sector is torn");
        }
    }

    #[test]
    fn unsynced_names_are_lost_from_the_end() {
        let trace = trace(&[
            CREATE.into(),
            SYNC.into(),
            r#"1 openat(AT_FDCWD</>, "/d/b", O_RDWR|O_CREAT, 0600) = 4</d/b>"#.into(),
            r#"1 rename("/d/b", "/d/c") = 0"#.into(),
        ]);
        let mut builder = ImageBuilder::new(&trace, 1);
        let last: Vec<u64> = (0..500).filter(|n| builder.cut(*n) == 4).collect();
        let mut names = BTreeSet::new();
        for number in last {
            let image = builder.build(number);
            names.insert(image.files.into_keys().collect::<Vec<_>>().join(" "));
        }
        assert_eq!(names, ["a", "a b", "a c"].map(String::from).into());
    }

    #[test]
    fn an_image_is_determined_by_seed_and_number() {
        let trace = trace(&[
            CREATE.into(),
            pwrite('a', 2000, 0),
            pwrite('b', 2000, 100),
            SYNC.into(),
            pwrite('c', 2000, 200),
            pwrite('d', 2000, 300),
        ]);
        let mut alone = ImageBuilder::new(&trace, 5);
        let mut numbers: Vec<u64> = (0..50).collect();
        numbers.sort_by_key(|number| alone.cut(*number));
        let mut builder = ImageBuilder::new(&trace, 5);
        let images: Vec<_> = numbers
            .iter()
            .map(|number| builder.build(*number))
            .collect();
        let last = images.last().expect("an image");
        let number = numbers.last().expect("a number");
        assert_eq!(alone.build(*number).files, last.files);
    }
}
