"use strict";
// Reads Parquet files with hyparquet and prints their rows, one JSON object a line.
//
//   node archive.js MODULES FILE...
//
// MODULES is the node_modules directory: hyparquet is an ES module, which NODE_PATH does not find.
const path = require("node:path");

async function main(modules, files) {
  const { parquetReadObjects, asyncBufferFromFile } = await import(path.join(modules, "hyparquet/src/node.js"));
  const { compressors } = await import(path.join(modules, "hyparquet-compressors/src/index.js"));
  for (const name of files) {
    const file = await asyncBufferFromFile(name);
    for (const row of await parquetReadObjects({ file, compressors })) {
      process.stdout.write(JSON.stringify(row, (_, v) => (typeof v === "bigint" ? Number(v) : v)) + "\n");
    }
  }
}

main(process.argv[2], process.argv.slice(3)).catch((error) => {
  console.error(error);
  process.exit(1);
});
