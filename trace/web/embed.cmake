# embed.cmake -- writes report_assets.c: the files of the report's page as arrays of bytes.
#
#   cmake -DOUT=FILE "-DASSETS=name=file|file,name=file" -P embed.cmake
file(WRITE ${OUT}.tmp "/* Written by trace/web/embed.cmake. */\n#include \"report_assets.h\"\n")
string(REPLACE "," ";" assets "${ASSETS}")
foreach(asset IN LISTS assets)
  string(REGEX MATCH "^([^=]*)=(.*)$" _ "${asset}")
  set(name ${CMAKE_MATCH_1})
  string(REPLACE "|" ";" files "${CMAKE_MATCH_2}")
  set(bytes "")
  foreach(file IN LISTS files)
    file(READ ${file} hex HEX)
    string(APPEND bytes "${hex}")
  endforeach()
  string(REGEX REPLACE "(..)" "0x\\1," bytes "${bytes}")
  string(REGEX REPLACE "(........................................................................................................................)" "\\1\n" bytes "${bytes}")
  file(APPEND ${OUT}.tmp "static const unsigned char ${name}[] = {\n${bytes}0};\n"
                         "const ttx_asset ttx_asset_${name} = {${name}, sizeof ${name} - 1};\n")
endforeach()
file(RENAME ${OUT}.tmp ${OUT})
