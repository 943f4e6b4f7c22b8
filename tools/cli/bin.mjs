#!/usr/bin/env node
// The package's bin. In an installed package it runs the compiled program, because Node strips no types below
// node_modules; in the clone it runs the source. Plain JavaScript, so that an older Node can run it and say so.
import { existsSync } from "node:fs";
import { fileURLToPath } from "node:url";

const [major, minor] = process.versions.node.split(".").map(Number);
if (major < 22 || (major === 22 && minor < 18)) {
  console.error(`contrast-runtime needs Node 22.18 or newer; this is ${process.versions.node}.`);
  process.exit(2);
}
const compiled = new URL("../../dist/tools/cli/main.js", import.meta.url);
const installed = import.meta.url.includes("/node_modules/");
const source = new URL("./main.ts", import.meta.url);
if (installed && !existsSync(compiled)) {
  console.error(
    `This contrast-runtime package contains no compiled program (${fileURLToPath(compiled)}): it was packed without a build.`,
  );
  process.exit(2);
}
const { main } = await import(installed ? compiled : source);
process.exitCode = await main(process.argv.slice(2), { calledAs: process.argv[1] });
