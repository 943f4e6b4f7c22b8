import type { TomlError } from "smol-toml";

/** What the parser found, without the lines of the document that it goes on to quote: those may be long, or secret. */
export const tomlProblem = ({ message }: TomlError): string =>
  message.replace(/\n.*$/s, "").replace("Invalid TOML document: ", "");

/** A TOML basic string: JSON's escapes are all valid in one, which also requires DEL to be escaped. */
export const tomlString = (text: string): string => JSON.stringify(text).replaceAll("\x7f", "\\u007F");
