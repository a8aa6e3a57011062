use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http_body::Frame;

use super::BufferedBody;

/// Collects the frames of a body, up to a limit.
#[derive(Debug)]
pub(crate) struct BodyCollector {
    /// The only frame so far. Most bodies have one frame, which then needs no copy.
    first: Bytes,
    joined: BytesMut,
    trailers: Option<Box<HeaderMap>>,
    /// The maximum size in bytes.
    limit: u64,
}

/// The error of a body above its limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BodyTooLarge;

impl BodyCollector {
    pub(crate) fn up_to(limit: u64) -> Self {
        Self {
            first: Bytes::new(),
            joined: BytesMut::new(),
            trailers: None,
            limit,
        }
    }

    /// Returns the number of bytes so far.
    pub(crate) fn len(&self) -> usize {
        self.first.len() + self.joined.len()
    }

    /// Removes the data so far. The limit counts from there on.
    pub(crate) fn take_data(&mut self) -> Bytes {
        match self.joined.is_empty() {
            true => std::mem::take(&mut self.first),
            false => std::mem::take(&mut self.joined).freeze(),
        }
    }

    pub(crate) fn push(&mut self, frame: Frame<Bytes>) -> Result<(), BodyTooLarge> {
        match frame.into_data() {
            Ok(data) => {
                let length = self.len() + data.len();
                if length as u64 > self.limit {
                    return Err(BodyTooLarge);
                }
                if length == data.len() {
                    self.first = data;
                } else {
                    self.joined
                        .extend_from_slice(&std::mem::take(&mut self.first));
                    self.joined.extend_from_slice(&data);
                }
            }
            Err(frame) => {
                if let Ok(trailers) = frame.into_trailers() {
                    self.trailers.get_or_insert_default().extend(trailers);
                }
            }
        }
        Ok(())
    }

    pub(crate) fn finish(&mut self) -> BufferedBody {
        let data = match self.joined.is_empty() {
            true => std::mem::take(&mut self.first),
            // Shrunk to its length, since the body may be kept for long.
            false => std::mem::take(&mut self.joined)
                .to_vec()
                .into_boxed_slice()
                .into(),
        };
        BufferedBody::new(data, self.trailers.take().map(|trailers| *trailers))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn frames_are_joined_up_to_the_limit(
            frames in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..8), 0..6),
            limit in 0_u64..40,
        ) {
            let whole = frames.concat();
            let mut collecting = BodyCollector::up_to(limit);
            let fits = frames.into_iter().try_for_each(|data| collecting.push(Frame::data(data.into())));
            prop_assert_eq!(fits.is_ok(), whole.len() as u64 <= limit);
            if fits.is_ok() {
                let body = collecting.finish();
                prop_assert_eq!(body.data().as_ref(), whole.as_slice());
            }
        }
    }

    #[test]
    fn trailers_are_collected() {
        let mut collecting = BodyCollector::up_to(0);
        let mut trailers = HeaderMap::new();
        trailers.insert("x-checksum", http::HeaderValue::from_static("abc"));
        collecting.push(Frame::trailers(trailers.clone())).unwrap();
        assert_eq!(collecting.finish().trailers(), Some(&trailers));
    }
}
