"""The lab as a page that runs in a browser: `site` builds it from `static`."""
