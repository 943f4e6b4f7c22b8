import type { TomlError } from "smol-toml";

/** What the parser found, without the lines of the document that it goes on to quote: those may be long, or secret. */
export const tomlProblem = ({ message }: TomlError): string =>
  (message.split("\n", 1)[0] ?? "").replace("Invalid TOML document: ", "");
