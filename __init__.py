# ComfyUI looks for this file; pytest >= 8 imports it bare, outside any package, which has to work.
