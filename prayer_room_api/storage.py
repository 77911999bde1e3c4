from whitenoise.storage import CompressedManifestStaticFilesStorage


class StaticStorage(CompressedManifestStaticFilesStorage):
    """Hashed names once `collectstatic` has run, plain ones on a fresh clone."""

    def stored_name(self, name: str) -> str:
        # Without a manifest nothing is collected, and WhiteNoise serves the files that
        # the finders find. With one, a missing entry is still an error.
        return super().stored_name(name) if self.hashed_files else name
