//! The image of a CD that holds a few small files, in the form of ECMA-119, which every system reads.
//!
//! Invariant: the same volume and files give the same bytes. Names are written in capitals and with a version, as the
//! form wants them; systems show them in small letters and without.
//!
//! Not here: folders, long names, and whatever makes a CD boot.

/// The size of a block, in bytes.
const BLOCK_BYTES: u16 = 2048;
/// Where the description of the volume is. What comes before it is left to others.
const DESCRIPTION: u32 = 16;
/// Where the list of folders is, for each of the two orders of bytes.
const FOLDERS: [u32; 2] = [18, 19];
/// Where the one folder is.
const ROOT: u32 = 20;
/// Where the first file is.
const FILES: u32 = 21;
/// The length of the list of folders.
const FOLDERS_BYTES: u32 = 10;
/// The most files: they fit into the folder's one block.
const FILES_MAX: usize = 16;
/// The most characters of a name.
const NAME_CHARS_MAX: usize = 28;
/// The most characters of the name of a volume.
const VOLUME_CHARS_MAX: usize = 32;
/// When all of it was made: on 1 January 2000.
const DAY: [u8; 7] = [100, 1, 1, 0, 0, 0, 0];

/// Makes the image. `None` when there are too many files, or a name or a text is too long.
pub(super) fn image(volume: &str, files: &[(&str, &str)]) -> Option<Vec<u8>> {
    if files.len() > FILES_MAX || volume.len() > VOLUME_CHARS_MAX || !volume.is_ascii() {
        return None;
    }
    let mut files = files.to_vec();
    files.sort_unstable();
    let mut root = [folder(0), folder(1)].concat();
    let mut texts = Vec::new();
    for (name, text) in files {
        if name.is_empty() || name.len() > NAME_CHARS_MAX || !name.is_ascii() {
            return None;
        }
        let ending = if name.contains('.') { ";1" } else { ".;1" };
        let name = name.to_ascii_uppercase() + ending;
        let (at, size) = (FILES + blocks(&texts)?, u32::try_from(text.len()).ok()?);
        root.extend(record(name.as_bytes(), at, size, 0));
        texts.extend(text.as_bytes());
        fill_block(&mut texts);
    }
    let little = [&[1, 0], &ROOT.to_le_bytes()[..], &1_u16.to_le_bytes(), &[0, 0]].concat();
    let big = [&[1, 0], &ROOT.to_be_bytes()[..], &1_u16.to_be_bytes(), &[0, 0]].concat();
    let description = description(volume, FILES + blocks(&texts)?);
    let mut image = vec![0; usize::from(BLOCK_BYTES) * DESCRIPTION as usize];
    for block in [description, b"\xffCD001\x01".to_vec(), little, big, root] {
        image.extend(block);
        fill_block(&mut image);
    }
    image.extend(texts);
    Some(image)
}

/// How many blocks these bytes are.
fn blocks(bytes: &[u8]) -> Option<u32> {
    u32::try_from(bytes.len().div_ceil(usize::from(BLOCK_BYTES))).ok()
}

fn fill_block(bytes: &mut Vec<u8>) {
    bytes.resize(bytes.len().next_multiple_of(usize::from(BLOCK_BYTES)), 0);
}

/// A number in both orders of bytes, as the form has most of them.
fn both16(number: u16) -> [u8; 4] {
    let ([a, b], [c, d]) = (number.to_le_bytes(), number.to_be_bytes());
    [a, b, c, d]
}

/// See [`both16`].
fn both32(number: u32) -> Vec<u8> {
    [number.to_le_bytes(), number.to_be_bytes()].concat()
}

/// The one folder, called by a number: 0 for itself, 1 for what it is in.
fn folder(name: u8) -> Vec<u8> {
    record(&[name], ROOT, BLOCK_BYTES.into(), 2)
}

/// What a folder says of something that is in it.
fn record(name: &[u8], at: u32, size_bytes: u32, flags: u8) -> Vec<u8> {
    let mut record = [&[0, 0][..], &both32(at), &both32(size_bytes), &DAY, &[flags, 0, 0]].concat();
    record.extend(both16(1));
    // Names are short: see `NAME_CHARS_MAX`.
    record.push(u8::try_from(name.len()).unwrap_or_default());
    record.extend(name);
    record.resize(record.len().next_multiple_of(2), 0);
    record[0] = u8::try_from(record.len()).unwrap_or_default();
    record
}

/// What the volume says of itself.
fn description(volume: &str, blocks: u32) -> Vec<u8> {
    let mut all = b"\x01CD001\x01\0".to_vec();
    all.extend(format!("{:32}{volume:32}", "").as_bytes());
    all.extend([0; 8]);
    all.extend(both32(blocks));
    all.extend([0; 32]);
    for number in [1, 1, BLOCK_BYTES] {
        all.extend(both16(number));
    }
    all.extend(both32(FOLDERS_BYTES));
    all.extend([FOLDERS[0].to_le_bytes(), [0; 4], FOLDERS[1].to_be_bytes(), [0; 4]].concat());
    all.extend(folder(0));
    // Who made it and where that is said: nobody, nowhere.
    all.extend([b' '; 4 * 128 + 3 * 37]);
    for _ in 0..4 {
        // A time that is not told.
        all.extend([b'0'; 16]);
        all.push(0);
    }
    all.push(1);
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn le32(image: &[u8], at: usize) -> usize {
        u32::from_le_bytes(image[at..at + 4].try_into().unwrap()) as usize
    }

    /// Reads the files as a system would, from the description of the volume on.
    fn read(image: &[u8]) -> Vec<(String, String)> {
        let description = &image[16 * 2048..][..2048];
        assert_eq!(&description[..7], b"\x01CD001\x01");
        assert_eq!(le32(description, 80) * 2048, image.len());
        assert_eq!(description[881], 1);
        assert_eq!(&image[17 * 2048..][..7], b"\xffCD001\x01");
        let (start, size) = (le32(description, 156 + 2) * 2048, le32(description, 156 + 10));
        let folder = &image[start..][..size];
        let (mut at, mut files) = (0, Vec::new());
        while folder[at] != 0 {
            let record = &folder[at..][..folder[at].into()];
            let text = &image[le32(record, 2) * 2048..][..le32(record, 10)];
            if record[25] == 0 {
                let name = String::from_utf8_lossy(&record[33..][..record[32].into()]).into_owned();
                files.push((name, String::from_utf8_lossy(text).into_owned()));
            } else {
                assert_eq!(le32(record, 2) * 2048, start, "the folder itself");
            }
            at += record.len();
        }
        files
    }

    #[test]
    fn files_are_found_by_the_description_of_the_volume() {
        let long = "long ".repeat(1000);
        let image = image("cidata", &[("user-data", &long), ("a.b", ""), ("meta-data", "short")]);
        let image = image.unwrap();
        assert_eq!(&image[16 * 2048 + 40..][..32], format!("{:32}", "cidata").as_bytes());
        let expected = [("A.B;1", ""), ("META-DATA.;1", "short"), ("USER-DATA.;1", &long)];
        let expected = expected.map(|(name, text)| (name.to_owned(), text.to_owned()));
        assert_eq!(read(&image), expected);
    }

    #[test]
    fn what_does_not_fit_is_not_made() {
        let long = "x".repeat(29);
        assert_eq!(image("v", &[(&long, "")]), None);
        assert_eq!(image("v", &[("", "")]), None);
        assert_eq!(image(&"v".repeat(33), &[]), None);
        assert_eq!(image("v", &[("a", ""); 17]), None);
        assert!(image(&"v".repeat(32), &[(&long[1..], ""); 16]).is_some());
    }
}
