// What the engine starts for programs that use the components from another language than TypeScript. In an installed
// package it runs the compiled program, because Node strips no types below node_modules; in a clone it runs the source.
// Plain JavaScript, so that an older Node can run it and say so; without a top-level await, so that it can be required.
import module from "node:module";

const [major, minor] = process.versions.node.split(".").map(Number);
if (major < 22 || (major === 22 && minor < 18)) {
  console.error(`contrast-runtime needs Node 22.18 or newer; this is ${process.versions.node}.`);
  process.exit(2);
}
const compiled = new URL("../dist/components/provider.js", import.meta.url);
const source = new URL("../components/provider.ts", import.meta.url);
import(import.meta.url.includes("/node_modules/") ? compiled : source)
  .then(({ servePackage }) => {
    // With NODE_COMPILE_CACHE, what was compiled is kept now: the engine kills this process instead of letting it end.
    module.flushCompileCache();
    return servePackage(process.argv.slice(2));
  })
  .catch((error) => {
    console.error(error.message);
    process.exit(2);
  });
