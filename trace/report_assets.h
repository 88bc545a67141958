/* report_assets.h -- the sources of the report's pages, embedded when ttx is built. */
#ifndef TTX_REPORT_ASSETS_H
#define TTX_REPORT_ASSETS_H

#include <stddef.h>

typedef struct ttx_asset {
    const unsigned char *data;
    size_t size;
} ttx_asset;

/* trace/web/, and the library that draws lines (empty if the build had none). */
extern const ttx_asset ttx_asset_report_css, ttx_asset_report_body, ttx_asset_report_js,
    ttx_asset_compare_body, ttx_asset_compare_js, ttx_asset_charts_css, ttx_asset_charts_js;

#endif
