//! Contents of the largest compressed layer, decoded straight to their place in a tar.
//!
//! The idea to hold: a forecast is not a promise. `forecast` counts what will stand before each entry while the layer is still
//! being decoded, `moves` brings what other layers have there meanwhile, and what was foreseen wrongly is moved away before
//! the tar is written. `layers` knows it by its trait `Forecast` alone.

mod forecast;
mod moves;

use super::prepared::Task;
use super::root::Root;
use crate::image::Image;
use crate::layers::{Flattened, Forecast};
use forecast::TarForecast;

pub(super) use moves::{Mover, settle};

/// Where in the tar the contents of a layer will lie, so far as `others`, the layers without it, tell. `root` is what the
/// tar has besides the layers.
pub(super) fn forecast<'a>(
    image: &Image,
    root: Option<&'a Root>,
    task: &Task,
    mut others: Flattened,
    layer: u32,
    mover: &Mover<'_, '_>,
) -> Box<dyn Forecast + Send + 'a> {
    if let Some(root) = root {
        root.foresee(image, &mut others.tree, task);
    }
    Box::new(TarForecast::new(others, layer, root, mover))
}
