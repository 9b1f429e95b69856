//! Calls that were meant for ImageMagick, which has a program of the name `convert`, too.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

use crate::error::{Error, ErrorKind};
use crate::model::Quoted;

/// Options of ImageMagick in common use, less their first character (`-` or `+`). None of them is a cluster of our short
/// options that parses.
const OPTIONS: &str = "\
    adaptive-resize adjoin alpha annotate antialias append auto-level auto-orient background black-threshold blur \
    border bordercolor brightness-contrast caption channel charcoal clone coalesce colorize colors colorspace \
    combine comment compose composite compress contrast crop define delay density depth deskew despeckle dispose \
    distort dither draw edge emboss equalize evaluate extent extract fill filter flatten flip flop font format \
    frame fuzz gamma gaussian-blur geometry gravity grayscale identify implode interlace interpolate layers level \
    limit list loop mask modulate monochrome morph mosaic negate noise normalize opaque page paint pointsize \
    polaroid posterize profile quality quantize raise repage resample resize roll rotate sample sampling-factor \
    scale scene separate sepia-tone shade shadow sharpen shave shear sigmoidal-contrast size solarize splice \
    spread strip stroke strokewidth swirl threshold thumbnail tile tint transparent transpose trim type undercolor \
    units unsharp version vignette wave white-threshold";

/// Names by which ImageMagick tells what a picture is, as the suffix of a file or before a colon.
const PICTURES: &str = "\
    avif bmp eps gif heic ico jp2 jpeg jpg pbm pdf pgm png pnm ppm ps psd svg tif tiff webp xbm xpm";

/// Pictures that ImageMagick makes by itself: `xc:white`.
const MADE: &str = "\
    canvas caption gradient label logo pattern plasma rose xc";

/// The error for `arguments` (the program's name included) that are not a command of ours, if they are one of ImageMagick's.
pub(super) fn call(arguments: &[OsString]) -> Option<Error> {
    let words = || arguments.iter().skip(1);
    // ImageMagick has no option with two dashes.
    if words().any(|word| word.as_bytes().starts_with(b"--")) {
        return None;
    }
    let found = words().find(|word| is_option(word)).or_else(|| {
        let mut pictures = words().filter(|word| is_picture(word));
        pictures.next().filter(|_| pictures.next().is_some())
    })?;
    let message = format!(
        "{} is for ImageMagick's convert, and this is sif-convert, which converts container images",
        Quoted(found.as_bytes())
    );
    let hint = "call ImageMagick as \"magick\" or \"convert-im6.q16\", or put its directory first in PATH";
    Some(Error::new(ErrorKind::Usage, message).hint(hint))
}

fn is_option(word: &OsStr) -> bool {
    word.to_str().and_then(|text| text.strip_prefix(['-', '+'])).is_some_and(|name| is_listed(OPTIONS, name))
}

fn is_picture(word: &OsStr) -> bool {
    let Some(text) = word.to_str() else { return false };
    let text = text.to_ascii_lowercase();
    // "page.pdf[0]" is one page of it.
    let path = text.split('[').next().unwrap_or_default();
    let before_colon = text.split_once(':').map(|(name, _)| name);
    before_colon.is_some_and(|name| is_listed(PICTURES, name) || is_listed(MADE, name))
        || path.rsplit_once('.').is_some_and(|(_, suffix)| is_listed(PICTURES, suffix))
}

fn is_listed(list: &str, name: &str) -> bool {
    list.split(' ').any(|listed| listed == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(line: &str) -> Option<String> {
        let words: Vec<OsString> = format!("convert {line}").split_whitespace().map(OsString::from).collect();
        call(&words).map(|error| error.to_string())
    }

    #[test]
    fn calls_of_imagemagick_are_recognised() {
        for line in [
            "a.png b.jpg",
            "a.png -resize 50% b.jpg",
            "-version",
            "-size 10x10 xc:white out.gif",
            "logo: logo.PNG",
            "scan.pdf[0] page.tiff",
            "in.png +repage out",
            "png:- jpg:-",
        ] {
            let message = message(line).unwrap_or_else(|| panic!("{line}"));
            assert!(message.contains("this is sif-convert") && !message.contains('\n'), "{message}");
        }
    }

    #[test]
    fn our_own_calls_are_not() {
        for line in [
            "",
            "x.tar",
            "x.tar y.tar --to sif",
            "x.tar --forse",
            "a.png",
            "docker://host/app.png:1 y.png --to sif",
            "build a.sif",
            "x --to sif -fq -o y -v",
            "x.tar --to oci -flatten",
        ] {
            assert_eq!(message(line), None, "{line}");
        }
    }
}
