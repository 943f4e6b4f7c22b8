import { readFileSync } from "node:fs";

/** The rules, in the order in which one reads them. */
export const rules: string = [
  readFileSync(new URL("requests.rego", import.meta.url), "utf8"),
  readFileSync(new URL("containers.rego", import.meta.url), "utf8"),
  readFileSync(new URL("mounts.rego", import.meta.url), "utf8"),
].join("\n");
