"""OCI images: references, layouts on disk, unpacked root filesystems."""
