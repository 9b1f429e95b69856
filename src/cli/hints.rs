//! The words for what mends an error where that is an option of the program: the library knows of none.

use super::shell_word::shell_word;
use crate::error::{Error, ErrorKind, Remedy};

/// What to do about `error`: one action that works when typed. `None` where nothing is known.
pub(super) fn of(error: &Error) -> Option<String> {
    if error.kind() == ErrorKind::Output && error.io_kind() == Some(std::io::ErrorKind::BrokenPipe) {
        return Some(
            "the program that reads the pipe ended before it had all: find out why, or write to a file".into(),
        );
    }
    error.remedy_kind().map(words).or_else(|| error.remedy().map(str::to_string))
}

fn words(remedy: &Remedy) -> String {
    match remedy {
        Remedy::Replace => "add --force to replace it, or name another file with -o",
        Remedy::ReplaceAnyway => "add --force to replace it all the same, or name another file with -o",
        Remedy::OtherTag => "leave --if-exists out to replace it, or name another tag with -o",
        Remedy::OtherIndexTag => "choose another tag with --sif-tag, or add --force to take this one",
        Remedy::AttachedSif => "leave --attached out to convert the image here, and tell whoever attached that SIF",
        Remedy::SignedPlatform => "choose the platform whose SIF was signed with --platform, and name its signature",
        Remedy::ConvertAgain => "the file is damaged: convert it again, with --force, or fetch it again",
        Remedy::OutputFile => "name a file with -o, or remove the directory",
        Remedy::OutputName => "name another file with -o",
        Remedy::SeekableOutput => "name a file with -o: its header is written last",
        Remedy::WritableOutput => "name a file in a directory that you may write to, with -o",
        Remedy::CreateDirectory(directory) => {
            return format!("create the directory: mkdir -p {}", shell_word(directory.as_os_str()));
        }
        Remedy::RoomierOutput => "free some space there or name another directory with -o",
        Remedy::RoomForOutput => "free some space, or write to another file system with -o",
        Remedy::OtherFileSystem => {
            "write to another file system with -o; the system's log may say what is wrong with this one"
        }
        Remedy::OutputDirectory => "name it with -o, or convert --to oci-archive, which is the same in one tar",
        Remedy::OutputLayout => "name a new directory, or an OCI layout, with -o",
        Remedy::OtherLayout => "write to another layout with -o",
        Remedy::DamagedLayout => "the layout is damaged: write to another directory with -o",
        Remedy::AddToLayout => "leave --if-exists out to add the image to it, or name another directory with -o",
        Remedy::OtherTmpdir => "name another directory with --tmpdir",
        Remedy::RoomInTmpdir => "free some space, or name another directory with --tmpdir",
        Remedy::RoomThere => "free some space there or name another directory with --tmpdir",
        Remedy::OtherCache => "name another directory with --cache, or leave it out",
        Remedy::RoomInCache => "free some space, for example with sif-convert cache prune, or leave --cache out",
        Remedy::CacheDirectory => "name a directory that was given with --cache",
        Remedy::ExpectedSha256 => "the input is damaged or another one: fetch it again, or correct --expect-sha256",
        Remedy::ExpectedDigest => "fetch the image again, or correct --expect-digest",
        Remedy::DigestInstead => "use --expect-digest, which checks the image itself",
        Remedy::Image => "choose with --image NAME, ID, DIGEST or NUMBER, or with --platform OS/ARCH",
        Remedy::OnlyImage => "leave out what chooses an image or a platform: there is only one",
        Remedy::OneImage => "choose one with --image NAME, ID, DIGEST or NUMBER, or with --platform OS/ARCH",
        Remedy::OtherImage => "choose another image of the index with --image DIGEST, or push it in layers of tar",
        Remedy::Architecture => "say what the image runs on with --arch, for example --arch amd64",
        Remedy::Reference => "give the image a plain name with --reference, for example --reference app:1.0",
        Remedy::Key => "add --decrypt-passphrase-file FILE, or --decrypt-pem KEY.pem",
        Remedy::NoKey => "leave the key out: nothing is encrypted",
        Remedy::Sandbox => "unpack it first: sudo apptainer build --passphrase --sandbox DIRECTORY x.sif",
        Remedy::AllRoot => "squashfs cannot hold more: give all files to root with --all-root",
        Remedy::LayoutFirst => "convert it with --to oci first, and push that",
        Remedy::OciMediaTypes => "push it with --to oci, whose media types have one",
        Remedy::PathInImage => "name a path that is in the image: sif-convert ls SOURCE lists them",
        Remedy::OtherCompression => "choose another --compression, such as gzip, or push it with --to oci",
        Remedy::Memory => "if you trust it, allow more with --max-memory SIZE",
        Remedy::Gpg => "decrypt it on the way: sif-convert - --input-command 'gpg -d FILE' --to sif -o app.sif",
        Remedy::Timeout => "try again, or raise --timeout SECONDS",
        Remedy::Insecure(host) => return format!("if it is meant to speak plain HTTP, add --insecure {host}"),
    }
    .to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_innermost_remedy_is_told_in_words_of_the_program() {
        let error = || Error::new(ErrorKind::Output, "no");
        assert_eq!(of(&error()), None);
        assert_eq!(of(&error().hint("do this").with_remedy(Remedy::Replace)).unwrap(), "do this");
        let replace = error().with_remedy(Remedy::Replace).at("x").hint("do that").at("y");
        assert!(of(&replace).unwrap().contains("--force") && !replace.remedy().unwrap().contains("--"));
        assert_eq!(replace.path(), Some(std::path::Path::new("x")));
        let again = replace.again();
        assert_eq!((of(&again), again.path()), (of(&replace), replace.path()));
        assert!(of(&error().with_remedy(Remedy::Insecure("h:1".into()))).unwrap().ends_with("--insecure h:1"));
    }
}
