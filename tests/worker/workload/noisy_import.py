"""Makes every noise while it is imported."""

import noises

noises.make_all("import_")
