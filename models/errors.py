"""Why a bundle or a picture was refused, and what cures it."""


class BundleError(ValueError):
    """A bundle that cannot be trusted or run.

    `code` is one of bundle-missing, bundle-json, bundle-path, bundle-file-missing, bundle-digest, bundle-runtime,
    bundle-input, bundle-label-count, bundle-golden, model-load, model-output, model-setup (a word of the setup that is
    not known), model-device (the accelerator is not there or does not take the model), model-run (every way of running
    it has failed). Of a model that is to be quantised: quantise-missing, quantise-pictures, quantise-model,
    quantise-check, quantise-differs, and calibration-few, -flat, -alike, -range and -labels for pictures that cannot be
    calibrated with. Of a model of others: import-file, import-weights, import-operators, import-load, import-labels,
    import-inputs, import-outputs, import-shape, import-batch, import-channels, import-size, import-type, import-scale,
    import-not-classifier, import-label-count, import-output, import-differs. `hint` is the cure.
    """

    def __init__(self, code: str, message: str, hint: str) -> None:
        super().__init__(message)
        self.code = code
        self.hint = hint


class PictureError(ValueError):
    """A picture that cannot be classified.

    `code` is one of picture-empty, picture-not-a-picture, picture-too-large, picture-truncated, picture-broken,
    picture-shape, picture-unreadable (the file cannot be opened); `hint` is the cure.
    """

    def __init__(self, code: str, message: str, hint: str) -> None:
        super().__init__(message)
        self.code = code
        self.hint = hint


class DataError(ValueError):
    """Labelled pictures that cannot be used.

    `code` is one of data-missing, data-empty, data-list, data-classes, data-label (a name that is no label of the
    bundle), data-unreadable (not one picture could be read); `hint` is the cure.
    """

    def __init__(self, code: str, message: str, hint: str) -> None:
        super().__init__(message)
        self.code = code
        self.hint = hint
