import js from "@eslint/js";
import globals from "globals";

const rules = {
  "no-unused-vars": ["error", { args: "all", argsIgnorePattern: "^_", varsIgnorePattern: "^_" }],
  eqeqeq: ["error", "always", { null: "ignore" }],
  "no-var": "error",
  "prefer-const": "error",
};

export default [
  { ignores: [".venv*/", "node_modules/"] },
  js.configs.recommended,
  { files: ["web/*.js"], languageOptions: { globals: globals.browser }, rules },
  { files: ["tests/page/*.mjs", "eslint.config.mjs"], languageOptions: { globals: globals.node }, rules },
  {
    files: ["javascript/*.js"], // scripts of a gradio page, whose functions are global
    languageOptions: {
      sourceType: "script",
      globals: { ...globals.browser, gradioApp: "readonly", onUiLoaded: "readonly", requestProgress: "readonly" },
    },
    rules: { ...rules, "no-unused-vars": ["error", { vars: "local" }] },
  },
];
