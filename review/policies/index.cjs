// What the engine's policy host loads. The pack itself is a module of TypeScript, which Node runs as it is.
module.exports = import("./pack.ts");
