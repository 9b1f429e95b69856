//! What formats that share an option would each say about it: its builder method, and its place in [`Format`](super::Format).

/// `new` and the builder methods of options that several formats have.
macro_rules! builders {
    ($format:ident: $new:literal, $($option:ident),*) => {
        impl $format {
            #[doc = $new]
            pub fn new() -> Self {
                Self::default()
            }

            $($crate::output::builders::builders!(@$option);)*
        }
    };
    (@compression) => {
        /// Chooses the compression.
        #[must_use]
        pub fn compression(mut self, compression: $crate::io::Compression) -> Self {
            self.compression = Some(compression);
            self
        }
    };
    (@block_size) => {
        /// Chooses how many bytes a data block has.
        #[must_use]
        pub fn block_size(mut self, bytes: u32) -> Self {
            self.block_size = Some(bytes);
            self
        }
    };
    (@root) => {
        /// Chooses what goes into the root.
        #[must_use]
        pub fn root(mut self, root: $crate::output::Root) -> Self {
            self.root = root;
            self
        }
    };
    (@image) => {
        /// Makes one layer of all.
        #[must_use]
        pub fn flatten(mut self) -> Self {
            self.image.flatten = true;
            self
        }

        /// Calls the image `name`, besides other names that are given.
        #[must_use]
        pub fn tag(mut self, name: $crate::output::ImageName) -> Self {
            self.image.tags.push(name);
            self
        }
    };
}

/// Says in an `impl Format` which of the shared options a format has: fields of these names.
macro_rules! accessors {
    ($($option:ident: $type:ty),*) => {
        $(fn $option(&mut self) -> Option<&mut $type> {
            Some(&mut self.$option)
        })*
    };
}

pub(super) use {accessors, builders};
