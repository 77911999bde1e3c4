from whitenoise.storage import CompressedManifestStaticFilesStorage


class StaticStorage(CompressedManifestStaticFilesStorage):
    """Hashed names once `collectstatic` has run, plain ones on a fresh clone."""

    def stored_name(self, name: str) -> str:
        # Without a manifest nothing was collected, and WhiteNoise serves the files
        # where the finders see them. With one, a missing entry stays an error.
        return super().stored_name(name) if self.hashed_files else name
